//! An AVL tree the way kernels in C write it: links inside the 96-byte object, comparison through a function pointer.
//!
//! It stands in for a C tree where none is given ([`crate::avl_c`]), so that the index rows have an opponent of the
//! classic shape: one cache miss per level, one indirect call per comparison. Links are plain references to nodes
//! that live as long as the program.

use std::cell::Cell;
use std::cmp::Ordering;

/// A link to a node, or nothing.
type Link = Option<&'static Node>;

/// One object with the tree's fields inside, as large as a segment of the classic kind.
#[repr(align(32))]
pub(crate) struct Node {
    children: [Cell<Link>; 2],
    parent: Cell<Link>,
    height: Cell<u32>,
    /// First address of the segment.
    pub(crate) start: u64,
    /// First address behind it.
    pub(crate) end: u64,
    /// What a lookup answers.
    pub(crate) value: u32,
    /// The rest of the object, which a lookup does not read.
    _rest: [u64; 5],
}

const _: () = assert!(size_of::<Node>() == 96);

/// Compares an address with a node: inside the segment is equal.
type Compare = fn(u64, &Node) -> Ordering;

/// The tree: a root and a comparison chosen at run time.
pub(crate) struct PointerAvl {
    root: Cell<Link>,
    compare: Compare,
}

fn address_against_segment(address: u64, node: &Node) -> Ordering {
    if address < node.start {
        Ordering::Less
    } else if address < node.end {
        Ordering::Equal
    } else {
        Ordering::Greater
    }
}

fn height(link: Link) -> u32 {
    link.map_or(0, |node| node.height.get())
}

impl PointerAvl {
    pub(crate) fn new() -> Self {
        Self { root: Cell::new(None), compare: std::hint::black_box(address_against_segment) }
    }

    /// Nodes for `segments` of `(start, end)`, in one block, in that order; they live as long as the program.
    pub(crate) fn nodes(segments: &[(u64, u64)]) -> &'static [Node] {
        let nodes: Vec<Node> = segments
            .iter()
            .enumerate()
            .map(|(i, &(start, end))| Node {
                children: [Cell::new(None), Cell::new(None)],
                parent: Cell::new(None),
                height: Cell::new(0),
                start,
                end,
                value: i as u32,
                _rest: [0; 5],
            })
            .collect();
        Vec::leak(nodes)
    }

    /// The node whose segment holds `address`.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Link {
        let mut at = self.root.get();
        while let Some(node) = at {
            at = match (self.compare)(address, node) {
                Ordering::Less => node.children[0].get(),
                Ordering::Greater => node.children[1].get(),
                Ordering::Equal => return at,
            };
        }
        None
    }

    /// As the classic pair does it: a find that fails remembers where it ended, and the neighbour is walked to.
    pub(crate) fn find_or_next(&self, address: u64) -> Link {
        let (mut at, mut last, mut side) = (self.root.get(), None, 0);
        while let Some(node) = at {
            side = match (self.compare)(address, node) {
                Ordering::Less => 0,
                Ordering::Greater => 1,
                Ordering::Equal => return at,
            };
            last = at;
            at = node.children[side].get();
        }
        if side == 0 { last } else { next(last?) }
    }

    /// Links `node` in; its segment overlaps no other.
    pub(crate) fn insert(&self, node: &'static Node) {
        let (mut parent, mut side) = (None, 0);
        let mut at = self.root.get();
        while let Some(here) = at {
            side = usize::from((self.compare)(node.start, here) == Ordering::Greater);
            parent = at;
            at = here.children[side].get();
        }
        node.children.iter().for_each(|child| child.set(None));
        node.parent.set(parent);
        node.height.set(1);
        match parent {
            None => self.root.set(Some(node)),
            Some(parent) => parent.children[side].set(Some(node)),
        }
        self.rebalance(parent);
    }

    /// Unlinks `node`.
    pub(crate) fn remove(&self, node: &'static Node) {
        let from = if let (Some(_), Some(right)) = (node.children[0].get(), node.children[1].get())
        {
            let heir = leftmost(right);
            let from = if std::ptr::eq(heir, right) { Some(heir) } else { heir.parent.get() };
            self.put_in_place_of(heir, heir.children[1].get());
            for side in [0, 1] {
                heir.children[side].set(node.children[side].get());
                if let Some(child) = heir.children[side].get() {
                    child.parent.set(Some(heir));
                }
            }
            heir.height.set(node.height.get());
            self.put_in_place_of(node, Some(heir));
            from
        } else {
            let parent = node.parent.get();
            self.put_in_place_of(node, node.children[0].get().or(node.children[1].get()));
            parent
        };
        self.rebalance(from);
    }

    /// Makes the parent of `old` point at `new`.
    fn put_in_place_of(&self, old: &'static Node, new: Link) {
        let parent = old.parent.get();
        match parent {
            None => self.root.set(new),
            Some(parent) => {
                let side = usize::from(
                    parent.children[1].get().is_some_and(|right| std::ptr::eq(right, old)),
                );
                parent.children[side].set(new);
            }
        }
        if let Some(new) = new {
            new.parent.set(parent);
        }
    }

    /// Restores heights from `at` upwards, until nothing changes.
    fn rebalance(&self, mut at: Link) {
        while let Some(node) = at {
            let before = node.height.get();
            let [left, right] = [height(node.children[0].get()), height(node.children[1].get())];
            node.height.set(left.max(right) + 1);
            let top = if left > right + 1 {
                self.lower(node, 1)
            } else if right > left + 1 {
                self.lower(node, 0)
            } else {
                node
            };
            if top.height.get() == before {
                return;
            }
            at = top.parent.get();
        }
    }

    /// Rotates `node` down to `side`, twice where the inner grandchild is the tall one; returns what took its place.
    fn lower(&self, node: &'static Node, side: usize) -> &'static Node {
        let child = node.children[1 - side].get().expect("the taller side is not empty");
        if height(child.children[side].get()) > height(child.children[1 - side].get()) {
            self.rotate(child, 1 - side);
        }
        self.rotate(node, side)
    }

    fn rotate(&self, node: &'static Node, side: usize) -> &'static Node {
        let up = node.children[1 - side].get().expect("a rotation has a child to lift");
        let middle = up.children[side].get();
        self.put_in_place_of(node, Some(up));
        up.children[side].set(Some(node));
        node.parent.set(Some(up));
        node.children[1 - side].set(middle);
        if let Some(middle) = middle {
            middle.parent.set(Some(node));
        }
        for changed in [node, up] {
            changed
                .height
                .set(height(changed.children[0].get()).max(height(changed.children[1].get())) + 1);
        }
        up
    }
}

fn leftmost(mut node: &'static Node) -> &'static Node {
    while let Some(left) = node.children[0].get() {
        node = left;
    }
    node
}

/// The node behind `node` in address order.
fn next(mut node: &'static Node) -> Link {
    if let Some(right) = node.children[1].get() {
        return Some(leftmost(right));
    }
    loop {
        let parent = node.parent.get()?;
        if parent.children[0].get().is_some_and(|left| std::ptr::eq(left, node)) {
            return Some(parent);
        }
        node = parent;
    }
}
