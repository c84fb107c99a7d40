//! Events of servers, whose threads outlive every borrow of the [`super::Ui`].

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use igloo_base::{Event, Reporter};

/// Events that wait; when nobody reads standard error, later ones are dropped instead of holding up requests.
const WAITING: usize = 1024;

/// Hands events to another thread.
pub struct Forward(SyncSender<Event>);

impl Forward {
    /// The reporter, and where its events arrive.
    pub fn new() -> (Self, Receiver<Event>) {
        let (sender, receiver) = sync_channel(WAITING);
        (Self(sender), receiver)
    }
}

impl Reporter for Forward {
    fn event(&self, event: Event) {
        let _ = self.0.try_send(event);
    }
}
