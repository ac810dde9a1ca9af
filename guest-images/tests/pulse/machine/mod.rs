//! A machine just large enough for `pulse`: the boot protocol of flat images, a console both ways, nothing else.

#![expect(unsafe_code, reason = "floating-point state is handed to KVM by address")]

mod boot;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_pit_config, kvm_xsave};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use guest_images::pulse::{self, Params, layout};

const CONSOLE: u16 = 0x3f8;
const CONSOLE_IRQ: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// How a machine came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(u8),
    TripleFault,
    EmulationFailure,
    Other(String),
}

/// Size of a machine.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) cpus: u64,
    pub(crate) low_bytes: u64,
    pub(crate) high_bytes: u64,
    pub(crate) features: Features,
}

/// What the VMM switches on for the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Features {
    /// AVX, and FS and GS base for ring 3 to write.
    All,
    /// SSE only.
    Few,
}

pub(crate) struct Machine {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) shape: Shape,
    console: Arc<Console>,
    vm: Arc<VmFd>,
    cpus: Vec<Cpu>,
}

struct Cpu {
    thread: Option<JoinHandle<()>>,
    requests: mpsc::Sender<Request>,
}

type Request = Box<dyn FnOnce(&mut VcpuFd) + Send>;

#[derive(Default)]
struct Console {
    state: Mutex<ConsoleState>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct ConsoleState {
    output: Vec<u8>,
    read: usize,
    input: VecDeque<u8>,
    end: Option<End>,
    last_input: Option<Instant>,
    first_reply: Option<Duration>,
}

impl Shape {
    pub(crate) fn new(cpus: u64, low_bytes: u64) -> Self {
        Self { cpus, low_bytes, high_bytes: 0, features: Features::All }
    }
}

/// A machine whose vCPUs do not run yet.
pub(crate) struct Prepared {
    memory: GuestMemoryMmap,
    shape: Shape,
    vm: Arc<VmFd>,
    vcpus: Vec<VcpuFd>,
}

impl Prepared {
    /// Has the host touch all memory.
    pub(crate) fn touch(&self) {
        for region in self.memory.iter() {
            for at in (layout::FILL_START..region.len()).step_by(4096) {
                self.memory.write_obj(1_u8, GuestAddress(region.start_addr().0 + at)).unwrap();
            }
        }
    }

    pub(crate) fn start(self) -> Machine {
        let Self { memory, shape, vm, vcpus } = self;
        let console = Arc::new(Console::default());
        let start = |vcpu| {
            let (requests, receiver) = mpsc::channel();
            let console = Arc::clone(&console);
            Cpu { thread: Some(std::thread::spawn(move || run(vcpu, &receiver, &console))), requests }
        };
        let cpus = vcpus.into_iter().map(start).collect();
        Machine { memory, shape, console, vm, cpus }
    }
}

impl Machine {
    pub(crate) fn boot(shape: Shape, params: &Params) -> Self {
        Self::prepare(shape, params).start()
    }

    pub(crate) fn prepare(shape: Shape, params: &Params) -> Prepared {
        extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), ignore).expect("a handler that does nothing");

        let kvm = Kvm::new().expect("/dev/kvm is needed to test a guest");
        let vm = kvm.create_vm().expect("a VM");
        let memory = boot::memory(&vm, shape);
        memory
            .write_slice(&pulse::image(params).expect("an image"), GuestAddress(layout::LOAD_ADDRESS))
            .unwrap();
        boot::write_tables(&memory);
        vm.set_tss_address(0xfffb_d000).unwrap();
        vm.create_irq_chip().unwrap();
        vm.create_pit2(kvm_pit_config::default()).unwrap();
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
        let vcpus = (0..shape.cpus)
            .map(|index| {
                let vcpu = vm.create_vcpu(index).unwrap();
                vcpu.set_cpuid2(&cpuid).unwrap();
                boot::start_state(&vcpu, index, shape);
                vcpu
            })
            .collect();
        Prepared { memory, shape, vm: Arc::new(vm), vcpus }
    }

    /// Sends a byte to the console.
    pub(crate) fn send(&self, byte: u8) {
        {
            let mut state = self.console.state.lock().unwrap();
            state.input.push_back(byte);
            state.last_input = Some(Instant::now());
            state.first_reply = None;
        }
        self.vm.set_irq_line(CONSOLE_IRQ, true).unwrap();
        self.vm.set_irq_line(CONSOLE_IRQ, false).unwrap();
    }

    /// The next line of the console that starts with `start`; earlier ones are skipped.
    pub(crate) fn line(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.console.state.lock().unwrap();
        loop {
            while let Some(len) = state.output[state.read..].iter().position(|&byte| byte == b'\n') {
                let line = String::from_utf8_lossy(&state.output[state.read..state.read + len]).into_owned();
                state.read += len + 1;
                if line.starts_with(start) {
                    return line;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && state.end.is_none(),
                "no line {start:?}; ended: {:?}; console: {}",
                state.end,
                String::from_utf8_lossy(&state.output)
            );
            state = self.console.changed.wait_timeout(state, left.min(Duration::from_millis(100))).unwrap().0;
        }
    }

    /// All the console has shown so far.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.state.lock().unwrap().output).into_owned()
    }

    /// Time from the last byte sent to the first byte of output after it.
    pub(crate) fn reply_time(&self) -> Duration {
        self.console.state.lock().unwrap().first_reply.expect("a reply")
    }

    /// Waits for the machine's end.
    pub(crate) fn end(&self) -> End {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.console.state.lock().unwrap();
        while state.end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the guest does not end: {}", String::from_utf8_lossy(&state.output));
            state = self.console.changed.wait_timeout(state, left).unwrap().0;
        }
        state.end.clone().expect("waited for it")
    }

    /// Runs `work` with vCPU `index` stopped.
    pub(crate) fn with_vcpu<T: Send + 'static>(
        &self,
        index: usize,
        work: impl FnOnce(&mut VcpuFd) -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        let request: Request = Box::new(move |vcpu| sender.send(work(vcpu)).expect("the caller waits"));
        self.cpus[index].requests.send(request).expect("the vCPU runs");
        loop {
            // A signal that arrives outside KVM_RUN is lost: send them until one is heard.
            self.cpus[index].kick();
            if let Ok(result) = receiver.recv_timeout(Duration::from_millis(2)) {
                return result;
            }
        }
    }

    /// Stops all vCPUs, runs `work`, lets them go on.
    pub(crate) fn with_all_stopped<T>(&self, work: impl FnOnce() -> T) -> T {
        let go: Vec<_> = (0..self.cpus.len())
            .map(|index| {
                let (go, wait) = mpsc::channel::<()>();
                let (stopped, when_stopped) = mpsc::channel();
                self.cpus[index]
                    .requests
                    .send(Box::new(move |_| {
                        stopped.send(()).expect("the caller waits");
                        let _ = wait.recv();
                    }))
                    .expect("the vCPU runs");
                while when_stopped.recv_timeout(Duration::from_millis(2)).is_err() {
                    self.cpus[index].kick();
                }
                go
            })
            .collect();
        let result = work();
        drop(go);
        result
    }

    /// Waits until the guest's status satisfies `condition`.
    pub(crate) fn wait_for(&self, condition: impl Fn(&pulse::Status) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.status()) {
            let ended = self.console.state.lock().unwrap().end.clone();
            assert!(Instant::now() < deadline && ended.is_none(), "{ended:?}: {}", self.console());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the self-test of each vCPU has done so many full rounds.
    pub(crate) fn wait_for_rounds(&self, rounds: u64) {
        self.wait_for(|status| status.cpus.iter().all(|cpu| cpu.rounds >= rounds));
    }

    /// The last whole line of the console.
    pub(crate) fn last_line(&self) -> String {
        self.console().lines().last().unwrap_or_default().to_owned()
    }

    pub(crate) fn status(&self) -> pulse::Status {
        let mut bytes = [0; pulse::Status::LEN];
        self.read(layout::STATUS, &mut bytes);
        pulse::Status::from_bytes(&bytes).expect("a status block")
    }

    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, GuestAddress(address)).expect("an address in memory");
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("an address in memory");
    }
}

impl Cpu {
    fn kick(&self) {
        if let Some(thread) = &self.thread {
            let _ = thread.kill(SIGRTMIN());
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.console.stop.store(true, Ordering::SeqCst);
        for cpu in &mut self.cpus {
            while cpu.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
                cpu.kick();
                std::thread::sleep(Duration::from_millis(1));
            }
            let thread = cpu.thread.take().expect("taken once");
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a vCPU thread panicked");
            }
        }
    }
}

fn run(mut vcpu: VcpuFd, requests: &mpsc::Receiver<Request>, console: &Console) {
    loop {
        if console.stop.load(Ordering::SeqCst) {
            return;
        }
        while let Ok(request) = requests.try_recv() {
            request(&mut vcpu);
        }
        let end = match vcpu.run() {
            Ok(VcpuExit::IoOut(CONSOLE, bytes)) => {
                console.output(bytes);
                None
            }
            Ok(VcpuExit::IoIn(port, bytes)) => {
                bytes.fill(console.register(port));
                None
            }
            Ok(VcpuExit::IoOut(0xf4, bytes)) => Some(End::Exit(bytes[0])),
            Ok(VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..) | VcpuExit::Intr) => None,
            Ok(VcpuExit::MmioRead(_, bytes)) => {
                bytes.fill(0xff);
                None
            }
            Ok(VcpuExit::Shutdown) => Some(End::TripleFault),
            Ok(VcpuExit::InternalError) => Some(End::EmulationFailure),
            Ok(other) => Some(End::Other(format!("{other:?}"))),
            Err(error) if matches!(error.errno(), 4 | 11) => None,
            Err(error) => Some(End::Other(error.to_string())),
        };
        if let Some(end) = end {
            console.stop.store(true, Ordering::SeqCst);
            console.state.lock().unwrap().end.get_or_insert(end);
            console.changed.notify_all();
        }
    }
}

impl Console {
    fn output(&self, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        if state.first_reply.is_none() {
            state.first_reply = state.last_input.map(|sent| sent.elapsed());
        }
        state.output.extend(bytes);
        if bytes.contains(&b'\n') {
            self.changed.notify_all();
        }
    }

    fn register(&self, port: u16) -> u8 {
        let mut state = self.state.lock().unwrap();
        match port.wrapping_sub(CONSOLE) {
            0 => state.input.pop_front().unwrap_or(0),
            5 => 0x60 | u8::from(!state.input.is_empty()),
            _ => 0,
        }
    }
}

/// Sets the floating-point state of a stopped vCPU.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) {
    // SAFETY: the state is one that KVM gave, and KVM reads no more of it than the processor features of this VM have:
    // none of those that need more than the 4 KiB of `kvm_xsave` is switched on.
    unsafe { vcpu.set_xsave(xsave) }.unwrap();
}
