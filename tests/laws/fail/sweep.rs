//! Every deed, in every situation, with every request refused.

use super::deeds::{DEEDS, Deed, Done};
use super::world::{Situation, World};
use page_db::fail::Asked;
use page_db::{FailKind, FailPlan};
use segvm::machine::WorldDump;

/// What a failure may leave besides what the deed says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leeway {
    /// Nothing.
    None,
    /// A page shared by fork has been copied, byte for byte, when there was no frame left to map the copy with.
    Copied,
    /// Pages of swap have been lost.
    Lost,
}

/// What is done to a deed, and what it left.
pub(super) struct Case<'a> {
    deed: &'a Deed,
    situation: Situation,
    leeway: Leeway,
    before: WorldDump,
    after: WorldDump,
    /// What a failure may leave otherwise.
    or: Option<WorldDump>,
}

/// How often something was made to fail, and how often that was answered with an error.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) harmed: u32,
    pub(super) errors: u32,
}

/// A line without the name of its anon, which depends on how many there are before it; and without the number of its sharers, unless that matters.
fn nameless(line: &str, sharers: bool) -> String {
    let Some((who, rest)) = line.split_once(" anon ") else { return line.into() };
    let rest = rest.split_once(if sharers { " of " } else { " holds " });
    format!("{who} anon holds {}", rest.map_or("", |(_, rest)| rest))
}

/// The bytes that a line says an anon or a page of a file has.
fn bytes(line: &str) -> Option<&str> {
    line.split_once(" holds ").map(|(_, bytes)| bytes)
}

/// Whether `is` is `was` but for pages that were copied, byte for byte.
fn is_copied(was: &WorldDump, is: &WorldDump) -> bool {
    let others = |d: &WorldDump| {
        let others = d.visible().iter().filter(|l| !l.contains(" anon ")).cloned();
        others.collect::<Vec<_>>()
    };
    let anons = |d: &WorldDump| {
        let anons = d.visible().iter().filter(|l| l.contains(" anon "));
        anons.map(|l| nameless(l, false)).collect::<Vec<_>>()
    };
    let (had, has) = (anons(was), anons(is));
    let known = |l: &String| was.visible().iter().any(|w| bytes(w) == bytes(l));
    others(was) == others(is)
        && had.iter().all(|l| has.contains(l))
        && has.iter().all(|l| had.contains(l) || known(l))
}

fn is_lost(line: &str) -> bool {
    line.contains("nothing: lost")
}

/// Whether `line` is in `is`, or the anon that it tells of has been lost there. The sums of a machine that has lost pages are its own.
fn is_kept(line: &str, is: &WorldDump) -> bool {
    let there = |l: &String| nameless(l, true) == nameless(line, true);
    let place = |l: &str| l.split_once(" anon ").map(|(who, _)| who.to_string());
    let lost = |l: &String| is_lost(l) && place(l).is_some() && place(l) == place(line);
    let any_lost = is.visible().iter().any(|l| is_lost(l));
    is.visible().iter().any(|l| there(l) || lost(l)) || (any_lost && is_sum(line))
}

/// Numbers of a line that count pages of the whole process or machine: between two states they may be between.
fn is_sum(line: &str) -> bool {
    line.starts_with("swap promised") || line.starts_with("area ") || line.contains(" size 0x")
}

impl Case<'_> {
    fn is_good(&self, is: &WorldDump) -> Result<(), String> {
        let (before, after) = (&self.before, &self.after);
        let known = [Some(before), Some(after), self.or.as_ref()].into_iter().flatten();
        if known.clone().any(|d| d.visible() == is.visible()) {
            return Ok(());
        }
        let copied = self.leeway == Leeway::Copied;
        if copied && known.clone().any(|d| is_copied(d, is)) {
            return Ok(());
        }
        let lossy = self.leeway == Leeway::Lost;
        let gone = || format!("neither before nor after:\n{}", before.difference(is));
        if !self.deed.piecemeal && !lossy {
            return Err(gone());
        }
        // Whatever the deed leaves alone is there.
        let both = before.visible().iter().filter(|l| after.visible().contains(l));
        if let Some(line) = both.filter(|l| !is_sum(l)).find(|l| !copied && !is_kept(l, is)) {
            return Err(format!("gone: {line}\n{}", gone()));
        }
        let known: Vec<_> = known.flat_map(|d| d.visible()).map(|l| nameless(l, !copied)).collect();
        for line in is.visible() {
            let lost = lossy && is_lost(line);
            let same = copied
                && before.visible().iter().any(|w| bytes(w).is_some() && bytes(w) == bytes(line));
            if !lost && !same && !is_sum(line) && !known.contains(&nameless(line, !copied)) {
                return Err(format!("{line}\n{}", gone()));
            }
        }
        Ok(())
    }
    /// Does the deed under a plan, and checks all that must hold. Says whether it failed.
    fn try_plan(&self, plan: &FailPlan) -> bool {
        self.try_harm(&format!("{plan:?}"), |w| w.m.fail(plan), |w| w.m.fail(&FailPlan::default()))
    }
    /// Does the deed while something is wrong.
    pub(super) fn try_harm(
        &self,
        name: &str,
        harm: impl Fn(&World),
        heal: impl Fn(&World),
    ) -> bool {
        let w = World::new(self.situation);
        harm(&w);
        let answer = (self.deed.how)(&w);
        heal(&w);
        let at = format!("{:?}, {}: {name}: {answer:?}", self.situation, self.deed.what);
        w.m.verify().unwrap_or_else(|v| panic!("{at}: {v}"));
        let is = w.dump();
        self.is_good(&is).unwrap_or_else(|e| panic!("{at}: {e}"));
        if answer.is_ok() {
            self.assert_done(&is, &format!("{at}, done, but"));
        }
        if answer.is_err() {
            self.again(&w, &at);
        }
        w.end(&at);
        answer.is_err()
    }
    /// Nothing fails any more: the same call succeeds.
    fn again(&self, w: &World, at: &str) {
        let dead = w.p.has_exited(); // a program that failed behind the point of no return
        if dead || w.dump().visible().iter().any(|l| is_lost(l)) {
            return;
        }
        let again: Done = (self.deed.how)(w);
        assert_eq!(again, Ok(()), "{at}: nothing fails any more");
        w.m.verify().unwrap_or_else(|v| panic!("{at}, again: {v}"));
        self.assert_done(&w.dump(), &format!("{at}, again"));
    }
    /// The deed has left what it leaves when nothing fails, but for pages that have been lost.
    fn assert_done(&self, is: &WorldDump, at: &str) {
        let wrong = || format!("{at}:\n{}", self.after.difference(is));
        if self.leeway != Leeway::Lost {
            assert!(is.visible() == self.after.visible(), "{}", wrong());
            return;
        }
        let areas = |d: &WorldDump| d.visible().iter().filter(|l| l.starts_with("area ")).count();
        assert_eq!(areas(is), areas(&self.after), "areas of swap: {}", wrong());
        let missing = self.after.visible().iter().find(|l| !is_kept(l, is));
        assert!(missing.is_none(), "{missing:?} is not there: {}", wrong());
        let more =
            is.visible().iter().find(|l| !is_lost(l) && !is_sum(l) && !is_kept(l, &self.after));
        assert!(more.is_none(), "{more:?} should not be there: {}", wrong());
    }
}

/// Every deed in some situations, with what a run without failures asks for.
pub(super) fn cases(situations: &[Situation], leeway: Leeway, mut f: impl FnMut(&Case<'_>, Asked)) {
    for &situation in situations {
        let before = World::new(situation).dump();
        for deed in DEEDS {
            let clean = World::new(situation);
            clean.m.fail(&FailPlan::counting());
            (deed.how)(&clean).unwrap_or_else(|e| panic!("{situation:?}, {}: {e}", deed.what));
            let asked = clean.m.asked();
            clean.m.fail(&FailPlan::default());
            clean.m.verify().unwrap_or_else(|v| panic!("{situation:?}, {}: {v}", deed.what));
            let after = clean.dump();
            clean.end(deed.what);
            let or = deed.or.map(|or| {
                let w = World::new(situation);
                or(&w);
                w.dump()
            });
            let before = before.clone();
            f(&Case { deed, situation, leeway, before, after, or }, asked);
        }
    }
}

/// Tries all plans that `plans` makes of what a run without failures asks for.
fn sweep(leeway: Leeway, plans: impl Fn(Asked) -> Vec<FailPlan>) -> Tally {
    let mut tally = Tally::default();
    cases(&Situation::ALL, leeway, |case, asked| {
        for plan in plans(asked) {
            tally.harmed += 1;
            tally.errors += u32::from(case.try_plan(&plan));
        }
    });
    println!("{tally:?}");
    tally
}

fn each(kind: FailKind) -> Tally {
    let leeway = if kind == FailKind::DeviceRead { Leeway::Lost } else { Leeway::None };
    sweep(leeway, |asked| (1..=asked.of(kind)).map(|k| FailPlan::counting().kth(kind, k)).collect())
}

/// A frame is not to be had at once: the operation backs out, waits for memory, starts over, and is done.
#[test]
fn a_frame_is_refused() {
    let done = each(FailKind::Frame);
    assert!(done.harmed > 500 && done.errors == 0, "{done:?}");
}

#[test]
fn a_frame_for_a_page_table_is_refused() {
    let done = each(FailKind::Table);
    assert!(done.harmed > 50 && done.errors == 0, "{done:?}");
}

/// So with a record of a page table, of a mapping, of a chunk of slots.
#[test]
fn a_record_is_refused() {
    let done = each(FailKind::Record);
    assert!(done.harmed > 100 && done.errors == 0, "{done:?}");
}

/// No waiting brings numbers, so the want of one is an answer.
#[test]
fn an_anon_is_refused() {
    let done = each(FailKind::Anon);
    assert!(done.harmed > 50 && done.errors > 20, "{done:?}");
}

#[test]
fn room_in_a_tree_is_refused() {
    let done = each(FailKind::Node);
    assert!(done.harmed > 50 && done.errors == done.harmed, "{done:?}");
}

#[test]
fn a_promise_is_refused() {
    let done = each(FailKind::Reservation);
    assert!(done.harmed > 50 && done.errors > 50, "{done:?}");
}

/// A page that finds no slot stays in memory, modified.
#[test]
fn a_slot_is_refused() {
    let done = each(FailKind::Slot);
    assert!(done.harmed > 0 && done.errors == 0, "{done:?}");
}

#[test]
fn a_read_of_the_disk_fails() {
    let done = each(FailKind::DeviceRead);
    assert!(done.harmed > 50 && done.errors > 50, "{done:?}");
}

#[test]
fn a_write_to_the_disk_fails() {
    let done = each(FailKind::DeviceWrite);
    assert!(done.harmed > done.errors && done.errors > 0, "page-out hides its failures: {done:?}");
}

#[test]
fn a_read_of_a_file_fails() {
    let done = each(FailKind::VnodeRead);
    assert!(done.harmed > 50 && done.errors > 50, "{done:?}");
}

#[test]
fn a_write_to_a_file_fails() {
    let done = each(FailKind::VnodeWrite);
    assert!(done.harmed > done.errors && done.errors > 1, "page-out hides its failures: {done:?}");
}

/// The k-th request of every kind fails in one operation.
#[test]
fn everything_fails_at_once() {
    let done = sweep(Leeway::Lost, |asked| {
        let most = FailKind::ALL.map(|kind| asked.of(kind)).into_iter().max().unwrap_or(0);
        let plan = |k| FailKind::ALL.iter().fold(FailPlan::counting(), |p, kind| p.kth(*kind, k));
        (1..=most).map(plan).collect()
    });
    assert!(done.harmed > 500 && done.errors > 100, "{done:?}");
}

/// Two failures: one request of whatever kind, and an early one of each kind. Some thousands of cases.
#[test]
fn two_things_fail() {
    if std::env::var_os("SEGVM_FAIL_WIDE").is_none() {
        return println!("skipped: pairs of failures take two minutes (SEGVM_FAIL_WIDE)");
    }
    let done = sweep(Leeway::Lost, |asked| {
        let plan = |(k, kind, j)| FailPlan::counting().kth_of_any(k).kth(kind, j);
        let pairs = FailKind::ALL.into_iter().flat_map(|kind| [(kind, 1), (kind, 2), (kind, 3)]);
        let pairs = pairs.filter(|(kind, j)| *j <= asked.of(*kind));
        pairs.flat_map(|(kind, j)| (1..=asked.all()).map(move |k| plan((k, kind, j)))).collect()
    });
    assert!(done.harmed > 2000 && done.errors > 500, "{done:?}");
}
