//! Saved state of the console.

use serde::{Deserialize, Serialize};
use vm_superio::serial::SerialState;

use crate::schema::hex;

/// Registers and receive FIFO of the 16550.
///
/// Input that the host has queued because the guest's FIFO had no room belongs to the terminal, not to the machine, and is
/// not part of this state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the registers of a 16550")]
pub struct SerialStateV1 {
    pub baud_divisor_low: u8,
    pub baud_divisor_high: u8,
    pub interrupt_enable: u8,
    pub interrupt_identification: u8,
    pub line_control: u8,
    pub line_status: u8,
    pub modem_control: u8,
    pub modem_status: u8,
    pub scratch: u8,
    #[serde(with = "hex")]
    pub receive_fifo: Vec<u8>,
}

impl From<SerialState> for SerialStateV1 {
    fn from(state: SerialState) -> Self {
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: receive_fifo,
        } = state;
        Self {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            receive_fifo,
        }
    }
}

impl From<&SerialStateV1> for SerialState {
    fn from(state: &SerialStateV1) -> Self {
        let SerialStateV1 {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            receive_fifo: in_buffer,
        } = state.clone();
        Self {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        }
    }
}
