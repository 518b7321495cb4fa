//! What can go wrong with swap.

use crate::area::AreaId;
use crate::device::DeviceError;
use alloc::string::String;
use page_db::{VnodeError, errno};

/// Failures of names, reservations and areas.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SwapError {
    /// Neither the disks nor memory can back the promise; nothing has changed.
    #[error(
        "cannot reserve {wanted} pages of swap ({disk} left on disk, availrmem {availrmem}, floor {floor})"
    )]
    NoSwap {
        /// Pages asked for.
        wanted: u64,
        /// Pages of disk not promised to anybody.
        disk: u64,
        /// Pages of memory not promised to anybody.
        availrmem: u64,
        /// Pages of memory a promise must leave.
        floor: u64,
    },
    /// Every number is in use.
    #[error("no anon number left ({live} live)")]
    NoNames {
        /// Numbers in use at that moment.
        live: u64,
    },
    /// The host's heap refused a table.
    #[error("no heap for {what}")]
    NoHeap {
        /// What it would have held.
        what: &'static str,
    },
    /// An area of no pages.
    #[error("swap area on {device} has no pages")]
    EmptyRange {
        /// The device's name.
        device: String,
    },
    /// The range does not lie on the device.
    #[error("pages {start}+{pages} lie outside {device}, which has {size}")]
    OutsideDevice {
        /// The device's name.
        device: String,
        /// First page asked for.
        start: u64,
        /// Pages asked for.
        pages: u64,
        /// Pages of the device.
        size: u64,
    },
    /// The range shares pages with an area in use.
    #[error("pages {start}+{pages} of {device} overlap swap area {area}")]
    Overlap {
        /// The device's name.
        device: String,
        /// First page asked for.
        start: u64,
        /// Pages asked for.
        pages: u64,
        /// The area in the way.
        area: AreaId,
    },
    /// No more area ids.
    #[error("too many swap areas")]
    TooManyAreas,
    /// No area of that id.
    #[error("no swap area {area}")]
    NoSuchArea {
        /// The id asked for.
        area: AreaId,
    },
    /// Somebody is removing the area already.
    #[error("swap area {area} is being removed")]
    BeingRemoved {
        /// The area.
        area: AreaId,
    },
    /// An add of the same range called the removal off; the area stays.
    #[error("removal of swap area {area} was called off")]
    CalledOff {
        /// The area.
        area: AreaId,
    },
    /// What would be left cannot cover the reservations; the area stays.
    #[error(
        "swap area {area} ({pages} pages) backs reservations that {availrmem} pages of availrmem cannot take over"
    )]
    StillNeeded {
        /// The area.
        area: AreaId,
        /// Its size.
        pages: u64,
        /// Pages of memory not promised to anybody.
        availrmem: u64,
    },
    /// A page could not be brought back in; the area stays.
    #[error("swap area {area} cannot be emptied")]
    BringBack {
        /// The area.
        area: AreaId,
        /// What the page said.
        source: VnodeError,
    },
    /// The device refused.
    #[error("swap device refused")]
    Device(#[from] DeviceError),
}

impl SwapError {
    /// The number the textbook prints. A failed reservation is `ENOMEM` here; mmap and mprotect turn it into `EAGAIN`.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoSwap { .. }
            | Self::NoNames { .. }
            | Self::NoHeap { .. }
            | Self::TooManyAreas
            | Self::StillNeeded { .. } => errno::ENOMEM,
            Self::EmptyRange { .. } | Self::OutsideDevice { .. } | Self::NoSuchArea { .. } => {
                errno::EINVAL
            }
            Self::Overlap { .. } => errno::EEXIST,
            Self::BeingRemoved { .. } | Self::CalledOff { .. } => errno::EBUSY,
            Self::BringBack { source, .. } => source.errno(),
            Self::Device(e) => e.errno,
        }
    }
}
