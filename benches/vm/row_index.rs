//! Row 11: the segment index alone, against the classic tree and the maps of the shelf.

use std::hint::black_box;
use std::ops::Range;

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::index::{BTree, Classic, Index, LEN, Ours, Ranges, STEP, agree, segments};

/// A goal of the index, held against the classic tree.
const fn goal(
    row: &'static str,
    name: &'static str,
    ours: &'static str,
    reference: &'static str,
    must: f64,
    stretch: f64,
) -> Goal {
    let against = "classic AVL: 96-byte nodes, pointers";
    Goal { row, name, ours, reference, against, form: Form::AtMost, threads: 1, must, stretch }
}

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        goal(
            "11a.1k",
            "dependent random find at 1 000, ns",
            "11.find.1k.ours",
            "11.find.1k.classic",
            0.8,
            0.5,
        ),
        goal(
            "11a.100k",
            "dependent random find at 100 000, ns",
            "11.find.100k.ours",
            "11.find.100k.classic",
            0.8,
            0.5,
        ),
        goal(
            "11a.1M",
            "dependent random find at 1 000 000, ns",
            "11.find.1M.ours",
            "11.find.1M.classic",
            0.8,
            0.4,
        ),
        goal(
            "11b",
            "address in a gap: find + next, 100 000, ns",
            "11.gap.100k.ours",
            "11.gap.100k.classic",
            0.8,
            0.55,
        ),
        Goal {
            row: "11c",
            name: "find, 64 in a row per segment, hint, 1 000, ns",
            ours: "11.hint.ours",
            reference: "11.find.1k.ours",
            against: "our find without the hint",
            form: Form::AtMost,
            threads: 1,
            must: 0.10,
            stretch: 0.05,
        },
    ],
    also: &[
        Also { row: "11", name: "BTreeMap find at 1 000, ns", key: "11.find.1k.btree" },
        Also { row: "11", name: "BTreeMap find at 100 000, ns", key: "11.find.100k.btree" },
        Also { row: "11", name: "BTreeMap find at 1 000 000, ns", key: "11.find.1M.btree" },
        Also { row: "11", name: "BTreeMap find + next at 100 000, ns", key: "11.gap.100k.btree" },
        Also { row: "11", name: "rangemap find at 1 000, ns", key: "11.find.1k.range" },
        Also { row: "11", name: "rangemap find at 100 000, ns", key: "11.find.100k.range" },
        Also { row: "11", name: "remove + insert at 100 000, ours, ns", key: "11.pair.100k.ours" },
        Also {
            row: "11",
            name: "remove + insert at 100 000, classic, ns",
            key: "11.pair.100k.classic",
        },
        Also {
            row: "11",
            name: "remove + insert at 100 000, BTreeMap, ns",
            key: "11.pair.100k.btree",
        },
        Also {
            row: "11",
            name: "remove + insert at 100 000, rangemap, ns",
            key: "11.pair.100k.range",
        },
        Also {
            row: "11",
            name: "remove + insert, 100 000 over 1 000, ours",
            key: "11.growth.pair.ours",
        },
        Also {
            row: "11",
            name: "remove + insert, 100 000 over 1 000, classic",
            key: "11.growth.pair.classic",
        },
        Also {
            row: "11",
            name: "remove + insert, 100 000 over 1 000, BTreeMap",
            key: "11.growth.pair.btree",
        },
        Also {
            row: "11",
            name: "find, 100 000 over 1 000, classic",
            key: "11.growth.find.classic",
        },
        Also { row: "11", name: "find, 100 000 over 1 000, BTreeMap", key: "11.growth.find.btree" },
    ],
    build: |config| Ok(Box::new(Indexes::new(config)?)),
};

const LOOKUPS: usize = 200_000;

/// Random addresses in the part `within` of each segment's stretch.
pub(crate) fn addresses(rng: &mut Rng, n: usize, within: Range<u64>) -> Vec<u64> {
    let mut address = || {
        let offset = within.start + rng.below(within.end - within.start);
        rng.below(n as u64) * STEP + (offset & !7)
    };
    (0..LOOKUPS).map(|_| address()).collect()
}

/// Everything at one size.
struct Size {
    n: usize,
    ours: Ours,
    classic: Classic,
    btree: BTree,
    ranges: Option<Ranges>,
    inside: Vec<u64>,
    gaps: Vec<u64>,
}

impl Size {
    fn new(n: usize) -> Result<Self, String> {
        let segments = segments(n);
        let mut rng = Rng::new(111);
        let inside = addresses(&mut rng, n, 0..LEN);
        let gaps = addresses(&mut rng, n, LEN..STEP);
        let this = Self {
            n,
            ours: Ours::new(&segments),
            classic: Classic::new(&segments)?,
            btree: BTree::new(&segments),
            ranges: (n <= 100_000).then(|| Ranges::new(&segments)),
            inside,
            gaps,
        };
        if agree(&this.ours, &this.classic, n) && agree(&this.ours, &this.btree, n) {
            Ok(this)
        } else {
            Err(format!("the indexes of {n} segments disagree"))
        }
    }
}

/// One lookup after the other, each address depending on the answer before it. The first tenth only warms up.
pub(crate) fn dependent(addresses: &[u64], lookup: impl Fn(u64) -> u64) -> f64 {
    let zero = black_box(0);
    let (warm, addresses) = addresses.split_at(addresses.len() / 10);
    warm.iter().for_each(|&address| _ = black_box(lookup(address)));
    timed(addresses.len(), |part| {
        let addresses = addresses[part].iter();
        black_box(addresses.fold(0, |last, &address| lookup(address | (last & zero))));
    })
}

/// Random segments out and in again.
pub(crate) fn pairs(index: &mut impl Index, n: usize) -> f64 {
    let victims = Rng::new(112).permutation(n);
    let count = victims.len().min(20_000);
    let rounds = 20_000 / count;
    timed(count * rounds, |part| part.for_each(|i| index.replace(victims[i % count] as usize)))
}

/// The keys of one size: find, gap and pair of ours, classic, btree, range.
struct Keys {
    find: [&'static str; 4],
    gap: [&'static str; 3],
    pair: [&'static str; 4],
}

const SMALL: Keys = Keys {
    find: ["11.find.1k.ours", "11.find.1k.classic", "11.find.1k.btree", "11.find.1k.range"],
    gap: ["11.gap.1k.ours", "11.gap.1k.classic", "11.gap.1k.btree"],
    pair: ["11.pair.1k.ours", "11.pair.1k.classic", "11.pair.1k.btree", "11.pair.1k.range"],
};
const MIDDLE: Keys = Keys {
    find: ["11.find.100k.ours", "11.find.100k.classic", "11.find.100k.btree", "11.find.100k.range"],
    gap: ["11.gap.100k.ours", "11.gap.100k.classic", "11.gap.100k.btree"],
    pair: ["11.pair.100k.ours", "11.pair.100k.classic", "11.pair.100k.btree", "11.pair.100k.range"],
};
const LARGE: Keys = Keys {
    find: ["11.find.1M.ours", "11.find.1M.classic", "11.find.1M.btree", "11.find.1M.range"],
    gap: ["11.gap.1M.ours", "11.gap.1M.classic", "11.gap.1M.btree"],
    pair: ["11.pair.1M.ours", "11.pair.1M.classic", "11.pair.1M.btree", "11.pair.1M.range"],
};

struct Indexes {
    sizes: Vec<(Size, Keys)>,
}

impl Indexes {
    fn new(config: &Config) -> Result<Self, String> {
        let mut sizes = vec![(Size::new(1000)?, SMALL), (Size::new(100_000)?, MIDDLE)];
        if !config.quick {
            sizes.push((Size::new(1_000_000)?, LARGE));
        }
        Ok(Self { sizes })
    }
}

/// 64 consecutive finds in each of the small crowd's segments.
fn hinted(size: &Size) -> f64 {
    let zero = black_box(0);
    let order = Rng::new(113).permutation(size.n);
    let per_segment = timed(size.n, |part| {
        let (mut hint, mut last) = (None, 0);
        for &segment in &order[part] {
            for i in 0..64 {
                let address = u64::from(segment) * STEP + i * 64;
                last = size.ours.find_with_hint(address | (last & zero), &mut hint);
            }
        }
        black_box(last);
    });
    per_segment / 64.0
}

/// The finds and pairs of one size, kind after kind.
fn measure_size(size: &mut Size, keys: &Keys, samples: &mut Samples) {
    let Size { n, ours, classic, btree, ranges, inside, gaps } = size;
    samples.put(keys.find[0], dependent(inside, |address| ours.find(address)));
    samples.put(keys.find[1], dependent(inside, |address| classic.find(address)));
    samples.put(keys.find[2], dependent(inside, |address| btree.find(address)));
    samples.put(keys.gap[0], dependent(gaps, |address| ours.find_or_next(address)));
    samples.put(keys.gap[1], dependent(gaps, |address| classic.find_or_next(address)));
    samples.put(keys.gap[2], dependent(gaps, |address| btree.find_or_next(address)));
    samples.put(keys.pair[0], pairs(ours, *n));
    samples.put(keys.pair[1], pairs(classic, *n));
    samples.put(keys.pair[2], pairs(btree, *n));
    if let Some(ranges) = ranges {
        samples.put(keys.find[3], dependent(inside, |address| ranges.find(address)));
        samples.put(keys.pair[3], pairs(ranges, *n));
    }
}

impl Group for Indexes {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        for (size, keys) in &mut self.sizes {
            measure_size(size, keys, samples);
        }
        if config.quick {
            samples.lacks("11.find.1M.ours", "a million segments are left out by --quick");
        }
        samples.put("11.hint.ours", hinted(&self.sizes[0].0));
        for (key, large, small) in [
            ("11.growth.pair.ours", MIDDLE.pair[0], SMALL.pair[0]),
            ("11.growth.pair.classic", MIDDLE.pair[1], SMALL.pair[1]),
            ("11.growth.pair.btree", MIDDLE.pair[2], SMALL.pair[2]),
            ("11.growth.find.classic", MIDDLE.find[1], SMALL.find[1]),
            ("11.growth.find.btree", MIDDLE.find[2], SMALL.find[2]),
        ] {
            if let (Some(large), Some(small)) = (samples.latest(large), samples.latest(small)) {
                samples.put(key, large / small);
            }
        }
    }
}
