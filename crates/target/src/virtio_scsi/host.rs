//! The device as the driver sees it: feature bits, and the configuration space with the two sizes
//! that a driver may choose.

use wire::virtio::scsi::{
    CDB_BYTES_DEFAULT, Config, Event, RequestHeader, ResponseHeader, SENSE_BYTES_DEFAULT, feature,
};
use zerocopy::IntoBytes;

use crate::lun::map::NUMBER_MAX;
use crate::scsi::TRANSFER_BYTES_MAX;

/// The highest that a driver may set either size to: no CDB and no sense data of SCSI is longer.
pub const SIZE_MAX: u32 = 260;

/// What `max_sectors` counts in (5.6.4).
const SECTOR_BYTES: u64 = 512;

/// What the transport says about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub queue_count: u16,
    /// Most segments of a command's data.
    pub seg_max: u32,
    /// Most commands at one LUN.
    pub tasks_max: u32,
}

/// How much room requests have for CDBs, and responses for sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub cdb: u16,
    pub sense: u16,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { cdb: CDB_BYTES_DEFAULT as u16, sense: SENSE_BYTES_DEFAULT as u16 }
    }
}

impl Sizes {
    /// What comes before data-out.
    #[inline]
    pub const fn request(self) -> usize {
        size_of::<RequestHeader>() + self.cdb as usize
    }

    /// What comes before data-in.
    #[inline]
    pub const fn response(self) -> usize {
        size_of::<ResponseHeader>() + self.sense as usize
    }
}

/// Why a write to the configuration space was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigWriteError {
    #[error("a field of the configuration that is read-only")]
    ReadOnlyField,
    #[error("a size of {0} bytes; 1 to {SIZE_MAX} can be had")]
    Size(u32),
    #[error("past the end of the configuration")]
    OutOfRange,
}

/// One virtio SCSI host.
#[derive(Clone, Debug)]
pub struct Host {
    settings: Settings,
    sizes: Sizes,
}

impl Host {
    pub fn new(settings: Settings) -> Self {
        Self { settings, sizes: Sizes::default() }
    }

    /// The driver is gone or has reset the device.
    pub fn reset(&mut self) {
        self.sizes = Sizes::default();
    }

    /// The driver writes to the configuration space. Bytes that change nothing may be part of it.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ConfigWriteError> {
        let mut config = self.config();
        let from = offset as usize;
        let space = config.as_mut_bytes();
        let to = from.checked_add(bytes.len()).ok_or(ConfigWriteError::OutOfRange)?;
        space.get_mut(from..to).ok_or(ConfigWriteError::OutOfRange)?.copy_from_slice(bytes);
        let (cdb, sense) = (config.cdb_size, config.sense_size);
        let now = self.config();
        if (Config { cdb_size: now.cdb_size, sense_size: now.sense_size, ..config }) != now {
            return Err(ConfigWriteError::ReadOnlyField);
        }
        let size = |size: u32| match size {
            1..=SIZE_MAX => Ok(size as u16),
            _ => Err(ConfigWriteError::Size(size)),
        };
        self.sizes = Sizes { cdb: size(cdb.get())?, sense: size(sense.get())? };
        Ok(())
    }

    /// The SCSI host's own features to offer; those of the rings are the transport's. No INOUT: no
    /// command of ours has data both ways.
    pub const fn features(&self) -> u64 {
        feature::HOTPLUG | feature::CHANGE
    }

    /// The configuration space (5.6.4).
    pub fn config(&self) -> Config {
        let Settings { queue_count, seg_max, tasks_max } = self.settings;
        Config {
            num_queues: u32::from(queue_count).into(),
            seg_max: seg_max.into(),
            max_sectors: ((TRANSFER_BYTES_MAX / SECTOR_BYTES) as u32).into(),
            cmd_per_lun: tasks_max.into(),
            event_info_size: (size_of::<Event>() as u32).into(),
            sense_size: u32::from(self.sizes.sense).into(),
            cdb_size: u32::from(self.sizes.cdb).into(),
            max_channel: 0.into(),
            max_target: 0.into(),
            max_lun: u32::from(NUMBER_MAX).into(),
        }
    }

    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const SENSE_AT: u32 = offset_of!(Config, sense_size) as u32;

    fn host() -> Host {
        Host::new(Settings { queue_count: 4, seg_max: 126, tasks_max: 128 })
    }

    #[test]
    fn the_configuration_says_what_there_is() {
        let config = host().config();
        assert_eq!((config.num_queues.get(), config.cmd_per_lun.get()), (4, 128));
        assert_eq!((config.max_sectors.get(), config.event_info_size.get()), (32_768, 16));
        assert_eq!((config.sense_size.get(), config.cdb_size.get()), (96, 32));
        assert_eq!((config.max_target.get(), config.max_lun.get()), (0, 16_383));
        assert_eq!(host().sizes().request(), 51);
        assert_eq!(host().sizes().response(), 108);
    }

    #[test]
    fn a_driver_may_write_two_sizes_and_nothing_else() {
        let mut host = host();
        assert_eq!(host.write_config(SENSE_AT, &[252, 0, 0, 0]), Ok(()));
        assert_eq!(host.write_config(SENSE_AT + 4, &16u32.to_le_bytes()), Ok(()));
        assert_eq!(host.sizes(), Sizes { cdb: 16, sense: 252 });
        let size = |host: &mut Host, bytes: u32| host.write_config(SENSE_AT, &bytes.to_le_bytes());
        for wrong in [0, SIZE_MAX + 1, u32::MAX] {
            assert_eq!(size(&mut host, wrong), Err(ConfigWriteError::Size(wrong)));
        }
        assert_eq!(host.sizes(), Sizes { cdb: 16, sense: 252 });
        assert_eq!(host.write_config(0, &[9]), Err(ConfigWriteError::ReadOnlyField));
        assert_eq!(host.write_config(0, &[4]), Ok(()));
        assert_eq!(host.write_config(35, &[0, 0]), Err(ConfigWriteError::OutOfRange));
        assert_eq!(host.write_config(u32::MAX, &[0]), Err(ConfigWriteError::OutOfRange));
        host.reset();
        assert_eq!(host.sizes(), Sizes::default());
    }
}
