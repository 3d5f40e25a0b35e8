//! How an LU is brought into a pool.

use clap::Args;
use model::{LuMigrate as Request, LuName, PoolName};

use super::limits::Bandwidth;

#[derive(Debug, Args)]
pub struct LuMigrate {
    pub name: LuName,
    /// The pool that it is brought into
    #[arg(long)]
    pub pool: Option<PoolName>,
    /// Bytes a second that are brought, like 100M [default: off]; off: as fast as half of the time
    /// allows. Also when it is under way
    #[arg(long, value_name = "SIZE|off")]
    pub rate: Option<Bandwidth>,
    /// Leave it where it is, if it is not served from the pool yet
    #[arg(long, conflicts_with_all = ["pool", "rate"])]
    pub cancel: bool,
    /// Return at once: lu show tells how far it is
    #[arg(long)]
    pub no_wait: bool,
}

impl LuMigrate {
    pub fn request(&self) -> Request {
        Request { pool: self.pool.clone(), rate: self.rate.map(|it| it.0) }
    }
}
