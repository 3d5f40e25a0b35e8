//! Our front end against the `vhost` crate's back end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use proto::vhost_user::{
    FrontEnd, InflightArea, LogArea, MemoryRegion, Request, Response, RingAddresses,
};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    Backend, BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};

use super::socket;

const FEATURES: u64 = 0x1_7400_0244;

/// Writes down what it is asked, in words.
#[derive(Default)]
struct Recorder {
    seen: Vec<String>,
    refuse_rings: bool,
    inflight: Option<File>,
}

impl Recorder {
    fn note(&mut self, what: String) -> Result<()> {
        self.seen.push(what);
        Ok(())
    }
}

impl VhostUserBackendReqHandlerMut for Recorder {
    fn set_owner(&mut self) -> Result<()> {
        self.note("owner".into())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.note("reset owner".into())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.note("reset device".into())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("features {features:#x}"))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        for (region, file) in regions.iter().zip(&files) {
            let (guest, size) = (region.guest_phys_addr, region.memory_size);
            let (user, offset) = (region.user_addr, region.mmap_offset);
            let inode = socket::inode(file);
            self.note(format!("table {guest:#x} {size:#x} {user:#x} {offset:#x} {inode}"))?;
        }
        assert_eq!(regions.len(), files.len());
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        if self.refuse_rings {
            return Err(Error::InvalidParam);
        }
        self.note(format!("num {index} {num}"))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let flags = flags.bits();
        self.note(format!("addr {index} {flags} {descriptor:#x} {used:#x} {available:#x} {log:#x}"))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.note(format!("base {index} {base}"))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.note(format!("stop {index}"))?;
        Ok(VhostUserVringState::new(index, 0xfffe))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.note(format!("kick {index} {}", fd.is_some()))
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.note(format!("call {index} {}", fd.is_some()))
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.note(format!("err {index} {}", fd.is_some()))
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::all())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("protocol {features:#x}"))
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(8)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.note(format!("enable {index} {enable}"))
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok((offset..offset + size).map(|at| at as u8).collect())
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        self.note(format!("config {offset} {bytes:?}"))
    }

    fn set_backend_req_fd(&mut self, _: Backend) {
        self.seen.push("channel".into());
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidParam)
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidParam)
    }

    fn get_inflight_fd(&mut self, ask: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let answer = VhostUserInflight::new(0x9000, 0x1000, ask.num_queues, ask.queue_size);
        Ok((answer, self.inflight.take().ok_or(Error::InvalidParam)?))
    }

    fn set_inflight_fd(&mut self, area: &VhostUserInflight, file: File) -> Result<()> {
        let inode = socket::inode(&file);
        let VhostUserInflight { mmap_size, mmap_offset, num_queues, queue_size } = area;
        self.note(format!("inflight {mmap_size} {mmap_offset} {num_queues} {queue_size} {inode}"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(509)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        self.note(format!("add {guest:#x} {size:#x} {}", socket::inode(&file)))?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        self.note(format!("remove {guest:#x} {size:#x}"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidParam)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidParam)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidParam)
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let (size, offset) = (log.mmap_size, log.mmap_offset);
        self.note(format!("log {size} {offset} {}", socket::inode(&file)))
    }
}

struct Client {
    socket: UnixStream,
    front: FrontEnd<OwnedFd>,
}

impl Client {
    fn ask(&mut self, request: Request<OwnedFd>) -> Response<OwnedFd> {
        self.front.send(request);
        loop {
            if let Some(transmit) = self.front.transmit() {
                let count = socket::send(&self.socket, &transmit);
                self.front.handle_transmitted(count);
                continue;
            }
            if let Some(response) = self.front.poll_response().unwrap() {
                return response;
            }
            let (bytes, fds) = socket::receive(&self.socket, self.front.wanted());
            assert!(!bytes.is_empty(), "the back end has hung up");
            self.front.handle_input(&bytes, fds);
        }
    }

    fn done(&mut self, request: Request<OwnedFd>) {
        assert!(matches!(self.ask(request), Response::Done));
    }

    fn number(&mut self, request: Request<OwnedFd>) -> u64 {
        match self.ask(request) {
            Response::Number(number) => number,
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a session; what the back end saw comes back at the end.
fn session(recorder: Recorder, run: impl FnOnce(&mut Client)) -> Vec<String> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let recorder = Arc::new(Mutex::new(recorder));
    let mut handler = BackendReqHandler::from_stream(theirs, recorder.clone());
    let server = std::thread::spawn(move || {
        loop {
            match handler.handle_request() {
                Ok(()) | Err(Error::InvalidParam) => {}
                Err(Error::Disconnected | Error::SocketBroken(_) | Error::PartialMessage) => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut client = Client { socket: ours, front: FrontEnd::default() };
    run(&mut client);
    drop(client);
    server.join().unwrap();
    Arc::into_inner(recorder).unwrap().into_inner().unwrap().seen
}

fn negotiate(client: &mut Client) {
    client.done(Request::SetOwner);
    assert_eq!(client.number(Request::GetFeatures), FEATURES);
    assert_ne!(client.number(Request::GetProtocolFeatures), 0);
    client.done(Request::SetProtocolFeatures(proto::vhost_user::PROTOCOL_FEATURES));
    client.done(Request::SetFeatures(FEATURES));
    assert_eq!(client.number(Request::GetQueueNum), 8);
    assert_eq!(client.number(Request::GetMaxMemSlots), 509);
}

/// The life of ring 7.
fn ring(client: &mut Client, kick: OwnedFd) {
    let addresses =
        RingAddresses { descriptor: 0x1000, used: 0x3000, available: 0x2000, log: Some(0x9000) };
    client.done(Request::SetVringNum { ring: 7, num: 128 });
    client.done(Request::SetVringAddr { ring: 7, addresses });
    client.done(Request::SetVringBase { ring: 7, base: 5 });
    client.done(Request::SetVringCall { ring: 7, fd: None });
    client.done(Request::SetVringErr { ring: 7, fd: None });
    client.done(Request::SetVringKick { ring: 7, fd: Some(kick) });
    client.done(Request::SetVringEnable { ring: 7, enable: true });
    let stop = client.ask(Request::GetVringBase { ring: 7 });
    assert!(matches!(stop, Response::VringBase(0xfffe)));
}

#[test]
fn every_request_is_understood() {
    let (made, inflight_inode) = socket::file("inflight");
    let ((first, a), (second, b)) = (socket::file("a"), socket::file("b"));
    let ((log, log_inode), (added, added_inode)) = (socket::file("log"), socket::file("added"));
    let (kick, _) = socket::file("kick");
    let (channel, _) = UnixStream::pair().unwrap();
    let region = |guest_address| MemoryRegion {
        guest_address,
        size: 0x1000,
        user_address: 0x7000_0000,
        mmap_offset: 0x2000,
    };
    let recorder = Recorder { inflight: Some(made.into()), ..Recorder::default() };
    let seen = session(recorder, |client| {
        negotiate(client);
        client.done(Request::SetMemTable(vec![(region(0), first), (region(0x1000), second)]));
        client.done(Request::AddMemReg(region(0x2000), added));
        client.done(Request::RemMemReg(region(0x2000)));
        let log_area = LogArea { mmap_size: 0x1000, mmap_offset: 0x2000 };
        client.done(Request::SetLogBase(log_area, log));
        let ask = InflightArea { num_queues: 8, queue_size: 128, ..InflightArea::default() };
        let Response::Inflight(area, fd) = client.ask(Request::GetInflightFd(ask)) else {
            panic!("no in-flight area")
        };
        assert_eq!((area.mmap_size, area.mmap_offset), (0x9000, 0x1000));
        assert_eq!(socket::inode(&fd), inflight_inode);
        client.done(Request::SetInflightFd(area, fd));
        ring(client, kick);
        let get = client.ask(Request::GetConfig { offset: 3, size: 5, flags: 1 });
        assert!(matches!(get, Response::Config(bytes) if bytes == [3, 4, 5, 6, 7]));
        client.done(Request::SetConfig { offset: 32, flags: 0, bytes: vec![1, 2] });
        client.done(Request::SetBackendReqFd(channel.into()));
        client.done(Request::ResetDevice);
        client.done(Request::ResetOwner);
    });
    let features = proto::vhost_user::PROTOCOL_FEATURES;
    assert_eq!(
        seen,
        [
            "owner".to_owned(),
            format!("protocol {features:#x}"),
            format!("features {FEATURES:#x}"),
            format!("table 0x0 0x1000 0x70000000 0x2000 {a}"),
            format!("table 0x1000 0x1000 0x70000000 0x2000 {b}"),
            format!("add 0x2000 0x1000 {added_inode}"),
            "remove 0x2000 0x1000".to_owned(),
            format!("log 4096 8192 {log_inode}"),
            format!("inflight 36864 4096 8 128 {inflight_inode}"),
            "num 7 128".to_owned(),
            "addr 7 1 0x1000 0x3000 0x2000 0x9000".to_owned(),
            "base 7 5".to_owned(),
            "call 7 false".to_owned(),
            "err 7 false".to_owned(),
            "kick 7 true".to_owned(),
            "enable 7 true".to_owned(),
            "stop 7".to_owned(),
            "config 32 [1, 2]".to_owned(),
            "channel".to_owned(),
            "reset device".to_owned(),
            "reset owner".to_owned(),
        ]
    );
}

#[test]
fn a_refusal_is_a_refusal() {
    let seen = session(Recorder { refuse_rings: true, ..Recorder::default() }, |client| {
        negotiate(client);
        let refused = client.ask(Request::SetVringNum { ring: 0, num: 128 });
        assert!(matches!(refused, Response::Refused));
        client.done(Request::SetVringBase { ring: 0, base: 1 });
    });
    assert_eq!(seen.last().map(String::as_str), Some("base 0 1"));
}
