//! What is wanted joined with what is, for listings and status. The picture that the control thread
//! publishes says what was begun and what failed; the engine's snapshot says what goes on inside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use cluster::Part;
use model::status::{AdapterState, ClientView, LuState, LuView, MappingView, Phase, Problem};
use model::{AdapterId, Backing, Client, Config, Lu, Mapping, Subject};
use uuid::Uuid;

use crate::datadir::lu_file;
use crate::engine::{Health, Snapshot, Trouble};
use crate::reconcile::Failure;
use crate::socket;

/// The control thread's picture of the node.
#[derive(Debug, Clone)]
pub struct Published {
    pub config: Arc<Config>,
    pub phase: Phase,
    pub steps_pending: u64,
    pub failures: BTreeMap<Part, Failure>,
    pub devices: BTreeSet<Uuid>,
    pub adapters: BTreeSet<AdapterId>,
}

impl Default for Published {
    fn default() -> Published {
        Published {
            config: Arc::default(),
            phase: Phase::Starting,
            steps_pending: 0,
            failures: BTreeMap::new(),
            devices: BTreeSet::new(),
            adapters: BTreeSet::new(),
        }
    }
}

/// Everything that a view is made of.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    pub published: &'a Published,
    pub snapshot: &'a Snapshot,
    pub lus: &'a Path,
    pub run: &'a Path,
}

impl Picture<'_> {
    pub fn lu(&self, lu: &Lu) -> LuView {
        let part = Part::Device(lu.uuid);
        let is_open = self.published.devices.contains(&lu.uuid);
        let failure = self.published.failures.get(&part);
        let status = self.snapshot.devices.get(&lu.uuid);
        let subject = || Subject::Lu(lu.name.clone());
        let trouble = status.and_then(|status| status.problem.as_ref());
        let health = status.map(|status| status.health).unwrap_or_default();
        let state = match (is_open, failure, health) {
            (true, _, Health::Works) => LuState::Online,
            (true, _, Health::Degraded) => LuState::Degraded,
            (true, _, Health::Failed) | (false, Some(_), _) => LuState::Failed,
            (false, None, _) => LuState::Pending,
        };
        let path = match &lu.backing {
            Backing::File => Some(lu_file(self.lus, lu.uuid).to_string_lossy().into_owned()),
            Backing::Adopted { path } => Some(path.clone()),
            Backing::Memory | Backing::Null => None,
        };
        LuView {
            lu: lu.clone(),
            state,
            path,
            allocated: status.and_then(|status| status.allocated),
            mapped_to: self.config().mappings_of_lu(&lu.name).map(Mapping::adapter).collect(),
            problem: problem(failure, trouble, subject),
        }
    }

    pub fn mapping(&self, mapping: &Mapping) -> MappingView {
        let id = mapping.adapter();
        let is_open = self.published.adapters.contains(&id);
        let failure = self.published.failures.get(&Part::Adapter(id.clone()));
        let status = self.snapshot.adapters.get(&id);
        let state = match (is_open, failure, status) {
            (true, _, Some(status)) => status.state,
            (true, _, None) => AdapterState::Listening,
            (false, Some(_), _) => AdapterState::Failed,
            (false, None, _) => AdapterState::Pending,
        };
        let trouble = status.and_then(|status| status.problem.as_ref());
        let socket = socket::path_of(self.run, &id);
        MappingView {
            mapping: mapping.clone(),
            state,
            socket: Some(socket.to_string_lossy().into_owned()),
            session: status.and_then(|status| status.session.clone()),
            problem: problem(failure, trouble, || Subject::Adapter(id.clone())),
        }
    }

    pub fn client(&self, client: &Client) -> ClientView {
        let mappings = self.config().mappings_of_client(&client.name);
        let mappings = mappings.map(|mapping| self.mapping(mapping)).collect();
        ClientView { client: client.clone(), mappings }
    }

    /// Everything that is not as it should be.
    pub fn problems(&self) -> Vec<Problem> {
        let lus = self.config().lus.iter().filter_map(|lu| self.lu(lu).problem);
        let mappings = self.config().mappings.iter();
        lus.chain(mappings.filter_map(|mapping| self.mapping(mapping).problem)).collect()
    }

    /// LUs that are as they should be.
    pub fn lus_online(&self) -> u64 {
        let lus = self.config().lus.iter();
        lus.filter(|lu| self.lu(lu).state == LuState::Online).count() as u64
    }

    /// Adapters with a client on them.
    pub fn sessions(&self) -> u64 {
        let adapters = self.snapshot.adapters.values();
        adapters.filter(|adapter| adapter.state.has_session()).count() as u64
    }

    fn config(&self) -> &Config {
        &self.published.config
    }
}

fn problem(
    failure: Option<&Failure>,
    trouble: Option<&Trouble>,
    subject: impl Fn() -> Subject,
) -> Option<Problem> {
    if let Some(Failure { error, .. }) = failure {
        let (message, next) = (error.message.clone(), error.next.clone());
        return Some(Problem { subject: subject(), message, next });
    }
    let Trouble { message, next } = trouble?.clone();
    Some(Problem { subject: subject(), message, next })
}
