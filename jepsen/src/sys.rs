//! What needs a system call that no crate wraps.
#![allow(unsafe_code, reason = "two ioctls")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::ioctl::{Opcode, Setter, ioctl};

const TUNSETIFF: Opcode = 0x4004_54ca;
/// Ethernet frames, without a header of the driver's.
const IFF_TAP_NO_PI: u16 = 0x0002 | 0x1000;
const EXT4_IOC_SHUTDOWN: Opcode = 0x8004_587d;
/// Neither data nor the journal is written out.
const NO_LOG_FLUSH: u32 = 2;

/// The head of the kernel's `struct ifreq`, 40 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes an Ethernet device; frames are read from and written to what is returned. It goes when that is closed.
pub(crate) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TAP_NO_PI, rest: [0; 22] };
    assert!(name.len() < request.name.len(), "{name} is too long for a device");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads (and writes back the name of) an `ifreq` of 40 bytes, which the argument is.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    Ok(file.into())
}

/// Cuts a mounted ext4 file system off as a power failure does: what was not synced never reaches the disk, and
/// everything fails until it is mounted again.
pub(crate) fn shut_down_ext4(mount_point: &Path) -> io::Result<()> {
    let folder = File::open(mount_point)?;
    // SAFETY: EXT4_IOC_SHUTDOWN reads a u32.
    unsafe { ioctl(folder.as_fd(), Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH))? };
    Ok(())
}

/// Moves the calling thread into a network namespace of `ip netns`. Threads that it starts are there as well.
pub(crate) fn enter_namespace(name: &str) -> io::Result<()> {
    let namespace = File::open(Path::new("/run/netns").join(name))?;
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?;
    Ok(())
}
