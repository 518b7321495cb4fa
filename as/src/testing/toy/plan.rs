//! What a toy was asked, and how it is to fail.

use crate::error::SegError;
use crate::fault::FaultError;
use crate::leaving::Contents;
use crate::seg::SegCx;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use page_db::{Cx, PAGE_SIZE, VirtAddr, VirtRange};
use std::sync::Mutex;

/// One call of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) op: &'static str,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) writer: bool,
}

/// An ordered failure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fail {
    Seg(SegError),
    Fault(FaultError),
}

#[derive(Debug)]
struct Order {
    op: &'static str,
    /// The page at which it fails; 0 for any.
    page: u64,
    times: u32,
    fail: Fail,
}

/// What is to be done when an ordered failure comes.
struct Meanwhile(Box<dyn Fn() + Send>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// What the toys of a world were asked, and how they are to fail.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    meanwhile: Mutex<Option<(&'static str, Meanwhile)>>,
    calls: Mutex<Vec<Call>>,
    /// With each call, what counted as reserved then.
    reserved: Mutex<Vec<(&'static str, u64)>>,
    orders: Mutex<Vec<Order>>,
}

impl Plan {
    /// Lets `op` fail at the page `page` (0: at any), `times` times.
    pub(crate) fn fail(&self, op: &'static str, page: u64, times: u32, fail: Fail) {
        self.orders.lock().expect("quiet").push(Order { op, page, times, fail });
    }
    /// Does `what` whenever `op` fails as ordered, before it answers.
    pub(crate) fn meanwhile(&self, op: &'static str, what: impl Fn() + Send + 'static) {
        *self.meanwhile.lock().expect("quiet") = Some((op, Meanwhile(Box::new(what))));
    }
    /// The calls of `op` so far, forgotten by this.
    pub(crate) fn take(&self, op: &str) -> Vec<Call> {
        let mut calls = self.calls.lock().expect("quiet");
        let taken = calls.iter().copied().filter(|c| c.op == op).collect();
        calls.retain(|c| c.op != op);
        taken
    }
    /// What counted as reserved at each call of `op` so far.
    pub(crate) fn reserved_at(&self, op: &str) -> Vec<u64> {
        let reserved = self.reserved.lock().expect("quiet");
        reserved.iter().filter(|(of, _)| *of == op).map(|(_, bytes)| *bytes).collect()
    }
    /// All calls so far, forgotten by this.
    pub(crate) fn take_all(&self) -> Vec<Call> {
        core::mem::take(&mut *self.calls.lock().expect("quiet"))
    }
    pub(super) fn note(&self, op: &'static str, scx: &SegCx<'_>, range: VirtRange) {
        assert!(scx.seg.covers(range), "G1: {range} lies in {}", scx.seg);
        let call = Call { op, start: range.start().get(), end: range.end(), writer: scx.writer };
        self.calls.lock().expect("quiet").push(call);
        self.reserved.lock().expect("quiet").push((op, scx.space.resv_size()));
    }
    /// The failure ordered for `op` in `range`, and its page.
    pub(super) fn due(&self, op: &str, range: VirtRange) -> Option<(VirtAddr, Fail)> {
        let mut orders = self.orders.lock().expect("quiet");
        let order = orders.iter_mut().find(|o| {
            let here = o.page == 0 || (range.start().get()..range.end()).contains(&o.page);
            o.op == op && o.times > 0 && here
        })?;
        order.times -= 1;
        let page = if order.page == 0 {
            range.start()
        } else {
            VirtAddr::new(order.page).expect("canonical")
        };
        let fail = order.fail;
        drop(orders);
        match &*self.meanwhile.lock().expect("quiet") {
            Some((of, Meanwhile(what))) if *of == op => what(),
            _ => {}
        }
        Some((page, fail))
    }
    pub(super) fn seg(
        &self,
        op: &'static str,
        scx: &SegCx<'_>,
        range: VirtRange,
    ) -> Result<(), SegError> {
        self.note(op, scx, range);
        match self.due(op, range) {
            Some((_, Fail::Seg(error))) => Err(error),
            Some((_, Fail::Fault(error))) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Notes what is emptied, and as `writer` whether a lock was held.
impl Contents for Plan {
    fn empty(&self, cx: &Cx, part: core::ops::Range<u64>, _: u64, _: u64) {
        let (start, end) = (part.start * PAGE_SIZE, part.end * PAGE_SIZE);
        let call = Call { op: "empty", start, end, writer: !cx.held().is_empty() };
        self.calls.lock().expect("quiet").push(call);
    }
    fn wait_emptied(&self, cx: &Cx) {
        let call = Call { op: "wait_emptied", start: 0, end: 0, writer: !cx.held().is_empty() };
        self.calls.lock().expect("quiet").push(call);
    }
}
