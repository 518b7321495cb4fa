//! Why an edit of the tree was refused. Nothing has changed when one of these comes back.

use core::error::Error;
use core::fmt;

use super::NodeId;

/// There was no memory for the nodes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError {
    /// How many further intervals room was wanted for.
    pub wanted: usize,
}

/// Why an interval could not be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// It overlaps intervals in the tree, of which this is the lowest.
    Overlap {
        /// The lowest interval in the way.
        with: NodeId,
    },
    /// It reaches below the low limit or above the high limit.
    OutOfLimits,
    /// It ends at or below its start.
    Empty,
    /// There was no memory for a node. Cannot happen after a `reserve` that covers the insert.
    NoMemory,
}

/// Why one end of an interval could not be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeError {
    /// It would overlap this neighbour.
    Overlap {
        /// The neighbour in the way.
        with: NodeId,
    },
    /// It would reach below the low limit or above the high limit.
    OutOfLimits,
    /// Nothing would be left of it.
    Empty,
    /// The id names no interval of this tree (any more).
    NotInTree,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for {} further tree nodes", self.wanted)
    }
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { with } => write!(f, "the interval overlaps {with}"),
            Self::OutOfLimits => f.write_str("the interval lies outside the limits of the tree"),
            Self::Empty => f.write_str("the interval is empty"),
            Self::NoMemory => f.write_str("no memory for a tree node"),
        }
    }
}

impl fmt::Display for ResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { with } => write!(f, "the interval would overlap {with}"),
            Self::OutOfLimits => f.write_str("the interval would leave the limits of the tree"),
            Self::Empty => f.write_str("nothing would be left of the interval"),
            Self::NotInTree => f.write_str("the id names no interval of the tree"),
        }
    }
}

impl Error for AllocError {}
impl Error for InsertError {}
impl Error for ResizeError {}
