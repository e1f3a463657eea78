//! The boundary to the kernel: loads, attaches and pins the programs, fills their maps, and turns what they recorded
//! into flows.
//!
//! Used by `app`, which joins it with the proxy and the recorder. It promises that a failure to load, attach or pin
//! anything leaves nothing attached, and that no flow the programs recorded is forgotten before its receipt is written.

mod addr_changes;
mod attach;
mod hooks;
mod ledger;
mod load;
mod maps;
mod object;
mod own_addr;
mod quota;
mod side_by_side;
mod sys;

pub use addr_changes::AddressChanges;
pub use attach::{Attachment, HookInfo, KernelError, Pinned, Plan, attachment_id, pin_root};
pub use hooks::{HOOKS, Level, Probe, probe};
pub use ledger::{Finished, FlowTable, Ledger, finished_flows, local_end, to_flow};
pub use maps::{Counters, Maps, from_addr};
#[cfg(feature = "debug-ebpf")]
pub use object::follow_log;
pub use own_addr::AddressList;
