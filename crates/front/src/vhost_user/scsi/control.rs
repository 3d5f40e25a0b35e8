//! The control queue: task management, brought to every core that serves the nexus, and
//! asynchronous notification.
//!
//! A function that is found in flight after a restart is answered BUSY and not carried out: the
//! tasks that it is about stand on other queues, which have not begun again, so that nobody can
//! promise that nothing of them will happen any more. Its driver asks again or goes on to a reset.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use target::scsi;
use target::virtio_scsi::{Control, Function, gather, parse, response_of};
use wire::virtio::scsi::{ControlType, NotificationResponse, Response, TaskManagement};
use zerocopy::IntoBytes;

use super::{Scsi, ScsiQueue, Shared};
use crate::vhost_user::adapter::Spec;
use crate::vhost_user::kind::FunctionSetup;
use crate::vhost_user::queue::Queue;
use crate::vhost_user::ring::{Buffers, Chain, Fault};

/// The longest request.
const REQUEST_BYTES_MAX: usize = size_of::<TaskManagement>();

pub struct ControlQueue {
    spec: Arc<Spec<Scsi>>,
    shared: Arc<Shared>,
}

impl ControlQueue {
    pub fn new(setup: FunctionSetup<'_, Scsi>) -> Self {
        Self { spec: setup.spec.clone(), shared: setup.rules.shared }
    }

    pub fn begin(&self, queue: &Queue<ScsiQueue>, chain: Chain, buffers: &Buffers, again: bool) {
        let head = chain.head;
        let mut bytes = [0; REQUEST_BYTES_MAX];
        let len = bytes.len().min(chain.readable_bytes as usize);
        buffers.readable().copy_out(0, &mut bytes[..len]);
        let Some((control_type, control)) = parse(&bytes[..len]) else {
            return queue.fail(Fault::Short { head });
        };
        let response_bytes = Control::response_bytes(control_type);
        if (chain.writable_bytes as usize) < response_bytes {
            return queue.fail(Fault::Short { head });
        }
        if !queue.occupy(head, ()) {
            return;
        }
        let answer = Answer { head, control_type, into: buffers.writable().to_buf() };
        match control {
            Control::Refused(response) => answer.give(queue, response, 0),
            Control::Query { requested } => {
                answer.give(queue, Response::OK, requested & Control::NOTIFICATIONS);
            }
            Control::Subscribe { lun, requested } => {
                let nexus = (self.spec.device.enter)(queue.core());
                let number = nexus.unit_at(lun).and_then(|_| number_of(lun));
                match number {
                    Some(number) => {
                        let actual = self.shared.subscriptions().subscribe(number, requested);
                        answer.give(queue, Response::OK, actual);
                    }
                    None => answer.give(queue, Response::INCORRECT_LUN, 0),
                }
            }
            Control::Manage(_) if again => answer.give(queue, Response::BUSY, 0),
            Control::Manage(function) => {
                let (spec, shared, me) = (self.spec.clone(), self.shared.clone(), queue.me());
                queue.core().spawn(async move {
                    let response = manage(&spec, &shared, function).await;
                    answer.give(&me, response_of(response), 0);
                });
            }
        }
    }
}

fn number_of(lun: [u8; 8]) -> Option<u16> {
    u16::try_from(wire::scsi::LogicalUnitNumber(lun).number()?).ok()
}

/// Where an answer goes.
struct Answer {
    head: u16,
    control_type: ControlType,
    into: block::SglBuf,
}

impl Answer {
    fn give(&self, queue: &Queue<ScsiQueue>, response: Response, actual: u32) {
        let full = NotificationResponse { event_actual: actual.into(), response: response.0 };
        let bytes = match self.control_type {
            ControlType::AN_QUERY | ControlType::AN_SUBSCRIBE => full.as_bytes(),
            _ => &[response.0],
        };
        self.into.sgl().copy_in(0, bytes);
        queue.take_slot(self.head);
        queue.finish(self.head, bytes.len() as u32);
    }
}

/// Carries a function out where it belongs. What it ends is answered, for the driver to see, before
/// the function is.
async fn manage(spec: &Arc<Spec<Scsi>>, shared: &Shared, function: Function) -> scsi::Response {
    let Function { lun, what, everywhere, aborts } = function;
    if aborts {
        shared.aborting.fetch_add(1, Ordering::Relaxed);
    }
    let everyone = if everywhere { spec.cores.len() } else { 1 };
    let asked: Vec<_> = spec.cores[..everyone]
        .iter()
        .map(|remote| {
            let spec = spec.clone();
            remote.call(move |core| async move {
                let nexus = (spec.device.enter)(&core);
                let answer = nexus.manage(lun, what).await;
                // What has left is shown to the driver at the end of this turn.
                core.yield_now().await;
                answer
            })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.unwrap_or(scsi::Response::Failed));
    }
    if aborts {
        shared.aborting.fetch_sub(1, Ordering::Relaxed);
    }
    gather(answers)
}
