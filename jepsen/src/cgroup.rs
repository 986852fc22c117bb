//! Limits of a process, by control groups (version 1, whose controllers this kernel has).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// A group of one controller. Removed when dropped; the processes in it go back.
#[derive(Debug)]
pub(crate) struct Cgroup {
    controller: &'static str,
    path: PathBuf,
}

impl Cgroup {
    pub(crate) fn make(controller: &'static str, name: &str) -> Result<Self> {
        let path = PathBuf::from(ROOT).join(controller).join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { controller, path })
    }

    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = self.path.join(key);
        fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display()))
    }

    pub(crate) fn get(&self, key: &str) -> Result<String> {
        Ok(fs::read_to_string(self.path.join(key))?)
    }

    /// Puts a process into it.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Ok(pids) = self.get("cgroup.procs") {
            let above = PathBuf::from(ROOT).join(self.controller).join("cgroup.procs");
            for pid in pids.lines() {
                let _ = fs::write(&above, pid);
            }
        }
        let _ = fs::remove_dir(&self.path);
    }
}
