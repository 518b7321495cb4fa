//! What the tree looks like: a list for programs, an indented picture for people (`::segtree`).
//!
//! Both come from one walk that trusts nothing, so that a damaged tree can be looked at as well:
//! it goes no deeper than a tree can be and shows no more nodes than there are slots.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::Avl;
use super::node::{LEFT, MAX_HEIGHT, NodeId, RIGHT};

/// One node as it stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeNode {
    /// Its id.
    pub id: NodeId,
    /// How far below the root it is; the root has 0.
    pub depth: u32,
    /// Where its interval starts.
    pub start: u64,
    /// Where its interval ends.
    pub end: u64,
    /// The height of its subtree; a leaf has 1.
    pub height: u32,
    /// The height of its right subtree less that of its left one: -1, 0 or 1.
    pub balance: i32,
    /// The size of the hole just below its interval.
    pub gap_before: u64,
    /// The largest hole of its subtree, rounded down to a multiple of 64.
    pub max_gap: u64,
}

/// Where a node hangs, for the lines of the picture.
#[derive(Clone, Copy)]
struct Hang {
    link: u32,
    depth: u32,
    /// `None` for the root.
    side: Option<usize>,
    /// Bit k: a line passes through column k.
    bars: u64,
}

/// The columns of the picture.
const COLUMNS: usize = 8;
const HEADINGS: [&str; COLUMNS] =
    ["tree", "start", "end", "size", "height", "bal", "gap", "max gap"];

impl Avl {
    /// Lists the nodes in address order, each with its place in the tree.
    #[must_use]
    pub fn shape(&self) -> Vec<ShapeNode> {
        self.pictured().into_iter().map(|(node, _)| node).collect()
    }

    fn pictured(&self) -> Vec<(ShapeNode, Hang)> {
        let mut rows = Vec::new();
        self.picture(Hang { link: self.root, depth: 0, side: None, bars: 0 }, &mut rows);
        rows
    }

    /// Recursion is bounded by the height of a tree, [`MAX_HEIGHT`].
    fn picture(&self, hang: Hang, rows: &mut Vec<(ShapeNode, Hang)>) {
        let at = hang.link as usize;
        let (Some(key), Some(room)) = (self.keys.get(at), self.rooms.get(at)) else { return };
        let Some(cold) = self.cold.get(at) else { return };
        // The second test spares a tree with a cycle the walk of all its 2^45 ways.
        if hang.depth as usize >= MAX_HEIGHT || rows.len() >= self.keys.len() {
            return;
        }
        // The line from a node to its parent passes the rows between the two: those of the
        // subtree on the parent's side.
        let child = |side: usize| {
            let passes = hang.side.is_some_and(|own| own != side);
            Hang {
                link: key.kids[side],
                depth: hang.depth + 1,
                side: Some(side),
                bars: hang.bars | if passes { 1 << (hang.depth - 1) } else { 0 },
            }
        };
        self.picture(child(LEFT), rows);
        let height =
            |link: u32| self.rooms.get(link as usize).map_or(0, |room| room.height() as i32);
        let node = ShapeNode {
            id: NodeId(hang.link),
            depth: hang.depth,
            start: key.start,
            end: cold.end,
            height: room.height(),
            balance: height(key.kids[RIGHT]) - height(key.kids[LEFT]),
            gap_before: room.gap,
            max_gap: room.max_gap(),
        };
        if rows.len() < self.keys.len() {
            rows.push((node, hang));
        }
        self.picture(child(RIGHT), rows);
    }
}

/// The picture: a line of totals, then the tree lying on its side, lowest address first, with
/// addresses in hex and sizes in units of 1024, and the tail as last row.
impl fmt::Display for Avl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.pictured();
        let tail = self.high.wrapping_sub(self.tail);
        let largest = rows.iter().map(|(node, _)| node.gap_before).fold(tail, u64::max);
        let (low, high, height) = (self.low, self.high, self.height());
        let largest = size(largest);
        writeln!(
            f,
            "{} intervals in {low:x}-{high:x}, height {height}, largest gap {largest}",
            self.len
        )?;
        let mut table = Vec::with_capacity(rows.len() + 2);
        table.push(HEADINGS.map(String::from));
        table.extend(rows.iter().map(|(node, hang)| cells(node, hang)));
        let none = String::new;
        table.push([
            String::from("tail"),
            format!("{:x}", self.tail),
            format!("{high:x}"),
            none(),
            none(),
            none(),
            size(tail),
            none(),
        ]);
        write_table(f, &table)
    }
}

fn cells(node: &ShapeNode, hang: &Hang) -> [String; COLUMNS] {
    let mut tree = String::new();
    for column in 0..hang.depth.saturating_sub(1) {
        tree.push_str(if hang.bars & (1 << column) != 0 { "│ " } else { "  " });
    }
    tree.push_str(match hang.side {
        None => "",
        Some(LEFT) => "┌─",
        Some(_) => "└─",
    });
    tree.push_str(&node.id.to_string());
    [
        tree,
        format!("{:x}", node.start),
        format!("{:x}", node.end),
        size(node.end.wrapping_sub(node.start)),
        node.height.to_string(),
        if node.balance == 0 { String::from("0") } else { format!("{:+}", node.balance) },
        size(node.gap_before),
        size(node.max_gap),
    ]
}

/// Writes a size in the largest unit in which it is a whole number, so that nothing is rounded.
fn size(units: u64) -> String {
    const NAMES: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let step = if units == 0 { 0 } else { (units.trailing_zeros() / 10) as usize };
    format!("{}{}", units >> (10 * step), NAMES[step])
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &[[String; COLUMNS]]) -> fmt::Result {
    let mut widths = [0; COLUMNS];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in table {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
