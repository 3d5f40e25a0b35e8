//! The device as the driver sees it: feature bits, configuration space, identification and cache
//! mode, all made from a [`Geometry`] and the settings of the mapping.

use block::{Geometry, OpSet};
use wire::virtio::blk::{
    Config, ConfigTopology, ID_BYTES, SECTOR_BYTES, WRITEBACK, WRITETHROUGH, feature,
};
use zerocopy::IntoBytes;

use super::command::Rules;

/// Longest range of one DISCARD or WRITE_ZEROES, so that none holds up a disk for long.
pub const RANGE_BYTES_MAX: u64 = 1 << 30;

/// Ranges in one DISCARD or WRITE_ZEROES.
const SEGMENTS_MAX: u32 = 1;

/// What GET_ID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Id(pub [u8; ID_BYTES]);

impl Id {
    /// The serial, cut to the 20 bytes there is room for and padded with NUL.
    pub fn new(serial: &str) -> Self {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self(id)
    }
}

/// What the mapping and the transport say about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub queue_count: u16,
    /// Most data segments of a request; what fits in a descriptor chain beside header and status.
    pub seg_max: u32,
    /// Longest data segment, in bytes; never less than what drivers merge on their own.
    pub size_max: u32,
    /// The mapping allows no writes, whatever the disk allows.
    pub read_only: bool,
    /// Start in write-back mode; the driver may change it.
    pub writeback: bool,
    pub id: Id,
}

/// Why a write to the configuration space was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigWriteError {
    /// Only `writeback` may be written; the write would change another field.
    ReadOnlyField,
    /// `writeback` is 0 or 1.
    CacheMode(u8),
    /// The write reaches past the end of the space.
    OutOfRange,
}

impl std::fmt::Display for ConfigWriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ReadOnlyField => f.write_str("a field of the configuration that is read-only"),
            Self::CacheMode(mode) => write!(f, "cache mode {mode}; 0 and 1 exist"),
            Self::OutOfRange => f.write_str("past the end of the configuration"),
        }
    }
}

impl std::error::Error for ConfigWriteError {}

/// One virtio block device.
#[derive(Clone, Debug)]
pub struct Disk {
    settings: Settings,
    geometry: Geometry,
    /// What the driver has accepted.
    accepted: u64,
    writeback: bool,
}

impl Disk {
    pub fn new(settings: Settings, geometry: Geometry) -> Self {
        Self { settings, geometry, accepted: 0, writeback: settings.writeback }
    }

    /// Takes the geometry as it is now. True when the driver has to be told.
    pub fn set_geometry(&mut self, geometry: Geometry) -> bool {
        let before = self.config();
        self.geometry = geometry;
        before != self.config()
    }

    /// The driver has accepted these features.
    pub fn set_features(&mut self, accepted: u64) {
        self.accepted = accepted;
    }

    /// The driver is gone or has reset the device.
    pub fn reset(&mut self) {
        self.accepted = 0;
        self.writeback = self.settings.writeback;
    }

    /// The driver writes to the configuration space. Bytes that change nothing may be part of it.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ConfigWriteError> {
        let mut config = self.config();
        let from = offset as usize;
        let space = config.as_mut_bytes();
        let to = from.checked_add(bytes.len()).ok_or(ConfigWriteError::OutOfRange)?;
        space.get_mut(from..to).ok_or(ConfigWriteError::OutOfRange)?.copy_from_slice(bytes);
        let mode = config.writeback;
        config.writeback = self.config().writeback;
        if config != self.config() {
            return Err(ConfigWriteError::ReadOnlyField);
        }
        match mode {
            WRITETHROUGH => self.writeback = false,
            WRITEBACK => self.writeback = true,
            mode => return Err(ConfigWriteError::CacheMode(mode)),
        }
        Ok(())
    }

    /// The mode that the driver chose, whether or not it takes effect with the features it has
    /// accepted: what a later session takes up.
    pub fn chosen_writeback(&self) -> bool {
        self.writeback
    }

    /// Takes up the mode that the driver chose in an earlier session.
    pub fn set_writeback(&mut self, writeback: bool) {
        self.writeback = writeback;
    }

    /// The block device's own features to offer; those of the rings are the transport's.
    pub fn features(&self) -> u64 {
        let mut features = feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::CONFIG_WCE
            | feature::MQ;
        if self.is_read_only() {
            return features | feature::RO;
        }
        for (op, bit) in
            [(OpSet::DISCARD, feature::DISCARD), (OpSet::WRITE_ZEROES, feature::WRITE_ZEROES)]
        {
            if self.geometry.ops.contains(op) {
                features |= bit;
            }
        }
        features
    }

    /// The configuration space (5.2.4).
    pub fn config(&self) -> Config {
        let geometry = &self.geometry;
        let range_max = u32::try_from(RANGE_BYTES_MAX / SECTOR_BYTES).expect("it is 1 GiB");
        let mut config = Config {
            capacity: (geometry.size / SECTOR_BYTES).into(),
            size_max: self.settings.size_max.into(),
            seg_max: self.settings.seg_max.into(),
            blk_size: geometry.block_size.into(),
            topology: topology(geometry),
            writeback: if self.shows_writeback() { WRITEBACK } else { WRITETHROUGH },
            num_queues: self.settings.queue_count.into(),
            ..Config::default()
        };
        let features = self.features();
        if features & feature::DISCARD != 0 {
            config.max_discard_sectors = range_max.into();
            config.max_discard_seg = SEGMENTS_MAX.into();
            let unit = u64::from(geometry.discard_granularity) / SECTOR_BYTES;
            config.discard_sector_alignment = u32::try_from(unit).unwrap_or(u32::MAX).into();
        }
        if features & feature::WRITE_ZEROES != 0 {
            config.max_write_zeroes_sectors = range_max.into();
            config.max_write_zeroes_seg = SEGMENTS_MAX.into();
            config.write_zeroes_may_unmap = u8::from(geometry.ops.contains(OpSet::DISCARD));
        }
        config
    }

    /// What queues need to read requests, as of now.
    pub fn rules(&self) -> Rules {
        Rules {
            read_only: self.is_read_only(),
            fua: !self.is_writeback(),
            discard: self.geometry.ops.contains(OpSet::DISCARD),
            write_zeroes: self.geometry.ops.contains(OpSet::WRITE_ZEROES),
        }
    }

    pub fn id(&self) -> &Id {
        &self.settings.id
    }

    /// Whether writes may stay in a cache until the next flush. A driver that cannot say so with
    /// CONFIG_WCE says it by whether it can flush (5.2.5, 5.2.6.2).
    pub fn is_writeback(&self) -> bool {
        let can_flush = self.accepted & feature::FLUSH != 0;
        let chooses = self.accepted & feature::CONFIG_WCE != 0;
        can_flush && (self.writeback || !chooses)
    }

    pub fn is_read_only(&self) -> bool {
        self.settings.read_only || self.geometry.read_only
    }

    /// 5.2.5.2: a driver that has CONFIG_WCE without FLUSH is told write-through.
    fn shows_writeback(&self) -> bool {
        let without_flush = self.accepted & feature::CONFIG_WCE != 0 && !self.is_writeback();
        self.writeback && !without_flush
    }
}

fn topology(geometry: &Geometry) -> ConfigTopology {
    let block = geometry.block_size;
    let blocks = (geometry.physical_block_size / block).max(1);
    ConfigTopology {
        physical_block_exp: blocks.ilog2() as u8,
        alignment_offset: 0,
        min_io_size: u16::try_from(blocks).unwrap_or(u16::MAX).into(),
        opt_io_size: (geometry.optimal_io_size / block).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    const SETTINGS: Settings = Settings {
        queue_count: 4,
        seg_max: 126,
        size_max: 1 << 20,
        read_only: false,
        writeback: true,
        id: Id([0; ID_BYTES]),
    };

    const WCE: u32 = offset_of!(Config, writeback) as u32;

    fn geometry() -> Geometry {
        Geometry {
            physical_block_size: 4096,
            optimal_io_size: 1 << 20,
            discard_granularity: 65536,
            ops: OpSet::DISCARD | OpSet::WRITE_ZEROES,
            ..Geometry::plain(20 << 30, 512)
        }
    }

    fn driver(settings: Settings, accepted: u64) -> Disk {
        let mut disk = Disk::new(settings, geometry());
        disk.set_features(accepted);
        disk
    }

    #[test]
    fn configuration_says_what_the_geometry_says() {
        let config = Disk::new(SETTINGS, geometry()).config();
        assert_eq!(config.capacity.get(), 20 << 21);
        assert_eq!(config.size_max.get(), 1 << 20);
        assert_eq!(config.seg_max.get(), 126);
        assert_eq!(config.blk_size.get(), 512);
        assert_eq!(config.topology.physical_block_exp, 3);
        assert_eq!(config.topology.min_io_size.get(), 8);
        assert_eq!(config.topology.opt_io_size.get(), 2048);
        assert_eq!(config.num_queues.get(), 4);
        assert_eq!(config.max_discard_sectors.get(), 1 << 21);
        assert_eq!(config.max_discard_seg.get(), 1);
        assert_eq!(config.discard_sector_alignment.get(), 128);
        assert_eq!(config.max_write_zeroes_sectors.get(), 1 << 21);
        assert_eq!(config.write_zeroes_may_unmap, 1);
        assert_eq!((config.unused0, config.unused1), (0, [0; 3]));
    }

    #[test]
    fn a_large_block_disk_has_no_smaller_unit() {
        let disk = Disk::new(SETTINGS, Geometry::plain(1 << 30, 4096));
        let config = disk.config();
        assert_eq!(config.capacity.get(), 1 << 21);
        assert_eq!(config.blk_size.get(), 4096);
        assert_eq!(config.topology.physical_block_exp, 0);
        assert_eq!(config.topology.min_io_size.get(), 1);
    }

    #[test]
    fn features_follow_the_abilities() {
        let all = Disk::new(SETTINGS, geometry()).features();
        assert_eq!(all & feature::RO, 0);
        for bit in [feature::DISCARD, feature::WRITE_ZEROES, feature::FLUSH, feature::CONFIG_WCE] {
            assert_ne!(all & bit, 0);
        }
        let plain = Disk::new(SETTINGS, Geometry::plain(1 << 20, 512));
        assert_eq!(plain.features() & (feature::DISCARD | feature::WRITE_ZEROES), 0);
        assert_eq!(plain.config().max_discard_sectors.get(), 0);
        let by_mapping = Disk::new(Settings { read_only: true, ..SETTINGS }, geometry());
        let by_disk = Disk::new(SETTINGS, Geometry { read_only: true, ..geometry() });
        for disk in [by_mapping, by_disk] {
            assert_ne!(disk.features() & feature::RO, 0);
            assert_eq!(disk.features() & (feature::DISCARD | feature::WRITE_ZEROES), 0);
            assert!(disk.rules().read_only);
        }
    }

    /// 5.2.5 and 5.2.6.2: CONFIG_WCE decides where it is accepted, else FLUSH does.
    #[test]
    fn the_cache_mode_is_what_driver_and_setting_agree_on() {
        let (flush, wce) = (feature::FLUSH, feature::CONFIG_WCE);
        let through = Settings { writeback: false, ..SETTINGS };
        for (settings, accepted, writeback) in [
            (SETTINGS, flush | wce, true),
            (through, flush | wce, false),
            (SETTINGS, flush, true),
            (through, flush, true),
            (SETTINGS, 0, false),
            (SETTINGS, wce, false),
        ] {
            let disk = driver(settings, accepted);
            assert_eq!(disk.is_writeback(), writeback, "{accepted:#x}");
            assert_eq!(disk.rules().fua, !writeback);
            let shown = disk.config().writeback == WRITEBACK;
            assert!(accepted & wce == 0 || shown == writeback);
        }
    }

    #[test]
    fn only_the_cache_mode_can_be_written() {
        let mut disk = driver(SETTINGS, feature::FLUSH | feature::CONFIG_WCE);
        disk.write_config(WCE, &[0]).unwrap();
        assert!(disk.rules().fua);
        assert_eq!(disk.config().writeback, WRITETHROUGH);
        disk.write_config(WCE, &[1]).unwrap();
        assert!(!disk.rules().fua);
        assert_eq!(disk.write_config(WCE, &[2]), Err(ConfigWriteError::CacheMode(2)));
        assert_eq!(disk.write_config(0, &[0; 8]), Err(ConfigWriteError::ReadOnlyField));
        assert_eq!(disk.write_config(72, &[0]), Err(ConfigWriteError::OutOfRange));
        assert_eq!(disk.write_config(u32::MAX, &[0]), Err(ConfigWriteError::OutOfRange));
        // The whole space as it is, with another cache mode: what a migration would write.
        let mut config = disk.config();
        config.writeback = WRITETHROUGH;
        disk.write_config(0, config.as_bytes()).unwrap();
        assert!(disk.rules().fua);
        disk.reset();
        assert_eq!(disk.config().writeback, WRITEBACK);
    }

    #[test]
    fn a_resize_is_news_and_a_repetition_is_not() {
        let mut disk = Disk::new(SETTINGS, geometry());
        assert!(!disk.set_geometry(geometry()));
        assert!(disk.set_geometry(Geometry { size: 40 << 30, ..geometry() }));
        assert_eq!(disk.config().capacity.get(), 40 << 21);
    }

    #[test]
    fn identification_is_cut_and_padded() {
        assert_eq!(Id::new("disk").0[..5], *b"disk\0");
        let long = Id::new("0123456789abcdefghij-and-more");
        assert_eq!(long.0, *b"0123456789abcdefghij");
    }
}
