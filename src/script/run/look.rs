//! Looking: views, and what a script expects of the last operation and the last view.

use super::super::ast::*;
use super::super::error::nearest;
use super::super::outcome::{FirstBytes, Outcome};
use super::super::world::*;
use super::{Event, RunProblem, Runner, Sink};

impl<W: World> Runner<W> {
    pub(super) fn view(
        &mut self,
        statement: &Statement,
        request: &ViewRequest,
        sink: &mut dyn Sink,
    ) -> Result<(), RunProblem> {
        if self.options.ignore_views {
            return Ok(());
        }
        self.begin();
        let mut call = self.resolve_view(request)?;
        call.json |= self.options.json_views;
        let view = self.world.view(&call)?;
        let text = if call.json { &view.json } else { &view.text };
        sink.event(Event::View { statement, text })?;
        // What the script expects is written about what the script asked for.
        self.last_view = Some(if request.json { view.json } else { view.text });
        Ok(())
    }

    /// Resolves a view's names and addresses.
    fn resolve_view(&self, request: &ViewRequest) -> Result<ViewCall, RunProblem> {
        let lives = |p: &ProcRef| {
            let p = self.proc(p)?;
            if self.lives(p) { Ok(p) } else { Err(RunProblem::from(ViewError::NoProcess(p))) }
        };
        let made = |f: &FileRef| {
            let f = self.file(f)?;
            if self.is_made(f) { Ok(f) } else { Err(RunProblem::from(ViewError::NoFile(f))) }
        };
        let space = |s: &SpaceRef| match s {
            SpaceRef::Process(p) => lives(p).map(SpaceRef::Process),
            SpaceRef::Kernel => Ok(SpaceRef::Kernel),
        };
        let at = |p: ProcSlot, a: &Addr| a.resolve(self.world.layout(p));
        let kind = match &request.kind {
            ViewKind::Pmap { space: s, extended } => {
                ViewKind::Pmap { space: space(s)?, extended: *extended }
            }
            ViewKind::Seg(s) => ViewKind::Seg(space(s)?),
            ViewKind::SegTree(s) => ViewKind::SegTree(space(s)?),
            ViewKind::Anon(p, a) => {
                let p = lives(p)?;
                ViewKind::Anon(p, a.as_ref().map(|a| at(p, a)))
            }
            ViewKind::Pages => ViewKind::Pages,
            ViewKind::FilePages(f) => ViewKind::FilePages(made(f)?),
            ViewKind::PageAt(pfn) => ViewKind::PageAt(*pfn),
            ViewKind::Memstat => ViewKind::Memstat,
            ViewKind::Vnode(f) => ViewKind::Vnode(made(f)?),
            ViewKind::Hash => ViewKind::Hash,
            ViewKind::VaToPfn(p, a) => {
                let p = lives(p)?;
                ViewKind::VaToPfn(p, at(p, a))
            }
            ViewKind::HTable(p) => ViewKind::HTable(lives(p)?),
            ViewKind::SwapInfo => ViewKind::SwapInfo,
            ViewKind::VmStat(names) => ViewKind::VmStat(names.clone()),
            ViewKind::Walk(p, a) => {
                let p = lives(p)?;
                ViewKind::Walk(p, at(p, a))
            }
        };
        Ok(ViewCall { kind, json: request.json })
    }

    pub(super) fn expect(&mut self, expectation: &Expectation) -> Result<(), RunProblem> {
        match expectation {
            Expectation::Outcome(pattern) => {
                let got = self.last_outcome.ok_or(RunProblem::NothingBefore)?;
                if pattern.matches(&got) {
                    return Ok(());
                }
                let (expected, got) = (pattern.to_string(), got.to_string());
                Err(RunProblem::Expectation { expected, got })
            }
            _ if self.options.ignore_views => Ok(()),
            Expectation::Text { text, present } => {
                let view = self.last_view.as_ref().ok_or(RunProblem::NothingBefore)?;
                if view.contains(text.as_str()) == *present {
                    return Ok(());
                }
                let not = if *present { "" } else { "not " };
                let expected = format!("{not}{text:?} in the last view");
                Err(RunProblem::Expectation { expected, got: format!("\n{}", view.trim_end()) })
            }
            Expectation::Counter { name, delta, at_least, value } => {
                self.expect_counter(name, *delta, *at_least, *value)
            }
        }
    }

    fn expect_counter(
        &mut self,
        name: &str,
        delta: bool,
        at_least: bool,
        value: u64,
    ) -> Result<(), RunProblem> {
        self.begin();
        let Some(now) = self.world.counter(name) else {
            let all = self.world.counters();
            let hint = nearest(name, all.iter().map(String::as_str));
            return Err(RunProblem::NoCounter { name: name.into(), hint });
        };
        let got = match delta {
            false => now,
            true => {
                let before = self.counted.get(name).ok_or(RunProblem::NothingBefore)?;
                now.wrapping_sub(*before)
            }
        };
        if got == value || (at_least && got > value) {
            return Ok(());
        }
        let plus = if delta { "+" } else { "" };
        let least = if at_least { ">=" } else { "" };
        let expected = format!("{name} {plus}{least}{value}");
        Err(RunProblem::Expectation { expected, got: format!("{name} {plus}{got}") })
    }
}

impl ExpectedOutcome {
    /// Says whether an outcome is as expected; words that are not given match anything.
    pub fn matches(&self, got: &Outcome) -> bool {
        fn same<T: PartialEq>(want: Option<T>, got: Option<T>) -> bool {
            want.is_none() || want == got
        }
        match (self, got) {
            (ExpectedOutcome::Ok { moved, n, h, b }, Outcome::Ok(facts)) => {
                let shown = facts.b.unwrap_or_default();
                let begins = |b: &FirstBytes| shown.as_slice().starts_with(b.as_slice());
                (!*moved || facts.moved)
                    && same(*n, facts.n)
                    && same(*h, facts.h)
                    && b.as_ref().is_none_or(begins)
            }
            (ExpectedOutcome::Errno(want), Outcome::Errno(got)) => want == got,
            (ExpectedOutcome::Segv { at, code }, Outcome::Segv { at: a, code: c }) => {
                same(*at, Some(*a)) && same(*code, Some(*c))
            }
            (ExpectedOutcome::Bus { at, code }, Outcome::Bus { at: a, code: c }) => {
                same(*at, Some(*a)) && same(*code, Some(*c))
            }
            (ExpectedOutcome::Trap { at, code }, Outcome::Trap { at: a, code: c }) => {
                same(*at, Some(*a)) && same(*code, Some(*c))
            }
            (ExpectedOutcome::Skip, Outcome::Skip) => true,
            _ => false,
        }
    }
}
