//! A disk for each replica: an ext4 image on a loop device, which can lose power, fill, hang, and be damaged.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sys;

/// Size of a disk. Sparse: only what is written takes room.
const SIZE: u64 = 512 << 20;

/// A disk. Unmounted when dropped; the image stays.
#[derive(Debug)]
pub(crate) struct Volume {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Volume {
    /// Makes a disk and mounts it.
    pub(crate) fn make(image: PathBuf, mount_point: PathBuf) -> Result<Self> {
        fs::create_dir_all(&mount_point)?;
        let file = fs::File::create(&image)?;
        file.set_len(SIZE)?;
        drop(file);
        let path = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "nodiscard", &path])?;
        let volume = Self { image, mount_point };
        volume.mount()?;
        Ok(volume)
    }

    fn mount(&self) -> Result<()> {
        run("mount", &["-o", "loop", &text(&self.image), &text(&self.mount_point)])
    }

    /// Mounts it again after it was cut off. No process may use it.
    pub(crate) fn remount(&self) -> Result<()> {
        // A process that was just killed may still be on its way out.
        for attempt in 0.. {
            match run("umount", &[&text(&self.mount_point)]) {
                Ok(()) => break,
                Err(error) if attempt == 50 => return Err(error),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
        self.mount()
    }

    /// Takes the power away: what was not synced is gone, and everything fails until [`Volume::remount`].
    pub(crate) fn cut_power(&self) -> Result<()> {
        sys::shut_down_ext4(&self.mount_point).context("cut the power of a disk")
    }

    /// Says whether nothing can be read or written any more.
    pub(crate) fn is_dead(&self) -> bool {
        fs::write(self.mount_point.join("is-alive"), b"x").is_err()
    }

    /// Takes all free room but a few pages: at 100 % brokers delete what they hold. Returns whether it did.
    pub(crate) fn fill(&self) -> Result<bool> {
        let file = fs::File::create(self.filler())?;
        let (mut len, mut step) = (0u64, 64u64 << 20);
        while step >= 32 << 10 {
            let flags = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&file, flags, len, step).is_ok() {
                len += step;
            } else {
                step /= 2;
            }
        }
        if self.free_bytes()? == 0 {
            file.set_len(len - (16 << 10))?;
        }
        Ok(self.free_bytes()? < 64 << 10)
    }

    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.mount_point)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.mount_point.join("filler")
    }

    /// Holds up every write until [`Volume::thaw`].
    pub(crate) fn freeze(&self) -> Result<()> {
        run("fsfreeze", &["-f", &text(&self.mount_point)])
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        run("fsfreeze", &["-u", &text(&self.mount_point)])
    }

    /// Returns the device, as cgroups name it.
    pub(crate) fn device(&self) -> Result<String> {
        use std::os::unix::fs::MetadataExt as _;
        let device = fs::metadata(&self.mount_point)?.dev();
        Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = self.thaw();
        // Processes that still hold files do not matter.
        let _ = run("umount", &["-l", &text(&self.mount_point)]);
    }
}

/// Unmounts what an earlier process that was killed has left below a folder.
pub(crate) fn unmount_leftovers(below: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount_point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(mount_point).starts_with(below) {
            let _ = run("umount", &["-l", mount_point]);
        }
    }
}

/// What is done to the files of a replica that does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One bit of the log is another one.
    FlipBit,
    /// The newest written segment ends early.
    Truncate,
    /// A page of the log is zero.
    ZeroPage,
    /// Everything that is derived from the log is gone.
    DeleteIndex,
}

/// What was done to the files of a store.
pub(crate) struct Damaged {
    pub(crate) text: String,
    /// Where the segment begins that was damaged; `None` if only derived files were.
    pub(crate) segment: Option<u64>,
}

/// Damages a store, of which `committed` bytes of the log are used. Returns what was done, or `None` if there is
/// nothing that can be damaged so.
pub(crate) fn damage(
    store: &Path,
    what: Damage,
    committed: u64,
    random: &mut fastrand::Rng,
) -> Result<Option<Damaged>> {
    if what == Damage::DeleteIndex {
        for folder in ["consumequeue", "index"] {
            let path = store.join(folder);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
        }
        let text = "consumequeue and index are deleted".into();
        return Ok(Some(Damaged { text, segment: None }));
    }
    let mut segments: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(store.join("commitlog"))? {
        let path = entry?.path();
        let base = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        segments.extend(base.filter(|base| *base < committed).map(|base| (base, path)));
    }
    segments.sort();
    let Some((base, path)) = (match what {
        Damage::Truncate => segments.last(),
        _ => segments.get(random.usize(..segments.len().max(1))),
    }) else {
        return Ok(None);
    };
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let used = (committed - base).min(file.metadata()?.len());
    if used < 8192 {
        return Ok(None);
    }
    let name = path.display();
    let text = match what {
        Damage::FlipBit => {
            let at = random.u64(..used);
            let mut byte = [0];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut byte)?;
            byte[0] ^= 1 << random.u8(..8);
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&byte)?;
            format!("a bit of {name} at {at} is flipped")
        }
        Damage::ZeroPage => {
            let at = random.u64(..used / 4096) * 4096;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&[0; 4096])?;
            format!("the page of {name} at {at} is zero")
        }
        Damage::Truncate => {
            let (size, cut) = (file.metadata()?.len(), random.u64(1..used.min(256 << 10)));
            file.set_len(used - cut)?;
            // As a file system that lost the end of a file after its size: the size is right, the bytes are not.
            file.set_len(size)?;
            format!("the last {cut} bytes of {name} are gone")
        }
        Damage::DeleteIndex => bail!("handled above"),
    };
    file.sync_all()?;
    Ok(Some(Damaged { text, segment: Some(*base) }))
}

/// Says whether disks can be made here, and if not, why.
pub(crate) fn is_possible() -> std::result::Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("loop devices need root".into());
    }
    for program in ["mkfs.ext4", "mount", "umount", "fsfreeze"] {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            return Err(format!("{program} is missing"));
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), errors.trim());
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
