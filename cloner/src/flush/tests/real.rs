//! Tests with a folder in a file system of this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::files::RealFiles;
use super::super::*;
use super::scene::{Scene, contents, recover_over};

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cloner-{name}-{}", std::process::id()));
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Arc<RealFiles> {
    Arc::new(RealFiles::open(path).unwrap())
}

#[test]
fn snapshots_come_back_from_a_real_folder_in_every_form() {
    for (number, (form, key)) in
        [(Form::Hot, None), (Form::Cold, None), (Form::Cold, Some(EncryptionKey::from_bytes(&[1; 32])))]
            .into_iter()
            .enumerate()
    {
        let folder = Temporary::new(&format!("flush-{number}"));
        let options = FolderOptions { host: String::from("here"), key, adopt: false };
        let scene = Scene::over(open(&folder.0), &options, Some(form)).unwrap();
        let parent = scene.put("parent", 1, (9, 512), &[]);
        scene.put("child", 2, (3, 100), &[&parent]);
        let report = scene.flush();
        assert_eq!((report.safe.len(), report.failed.len()), (2, 0), "{report:?}");
        assert!(report.safe.iter().all(|safe| safe.choice.form == form));
        let expected = contents(&scene.pool);
        drop((scene, parent));
        let (scene, report) = recover_over(open(&folder.0), &options).unwrap();
        assert!(report.dropped.is_empty(), "{report:?}");
        assert!(contents(&scene.pool) == expected);
    }
}

#[test]
fn one_process_at_a_time_has_a_folder() {
    let folder = Temporary::new("lock");
    let first = RealFiles::open(&folder.0).unwrap();
    assert_eq!(RealFiles::open(&folder.0).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    RealFiles::open(&folder.0).unwrap();
}
