//! GET CONFIGURATION: what the drive can do, and what of it with the medium that is in it.

use wire::scsi::mmc::{
    BLOCK_BYTES, CURRENT, ConfigurationHeader, DEVICE_BUSY_EVENTS, Feature, FeatureHeader,
    GetConfiguration, INTERFACE_SCSI, OPERATIONAL_EVENTS, PERSISTENT, Profile, ProfileDescriptor,
    RandomReadable, RequestedFeatures, TRAY, VERSION_SHIFT,
};

use super::super::context::Context;
use super::super::sense::Sense;
use super::super::spc::push;
use super::profile;

/// A feature: in which version it is here, with which media it is current, and what there is to say.
struct FeatureRow {
    feature: Feature,
    version: u8,
    current: Current,
    body: fn(Profile) -> Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Current {
    /// Of the drive: current whatever the medium.
    Always,
    WithMedium,
    With(Profile),
}

/// In ascending order.
const FEATURES: &[FeatureRow] = &[
    row(Feature::PROFILE_LIST, 0, Current::Always, profiles),
    row(Feature::CORE, 2, Current::Always, core),
    row(Feature::MORPHING, 1, Current::Always, |_| vec![OPERATIONAL_EVENTS, 0, 0, 0]),
    row(Feature::REMOVABLE_MEDIUM, 1, Current::Always, |_| vec![TRAY, 0, 0, 0]),
    row(Feature::RANDOM_READABLE, 0, Current::WithMedium, random_readable),
    // Neither C2 pointers nor CD-Text.
    row(Feature::CD_READ, 2, Current::With(Profile::CD_ROM), |_| vec![0; 4]),
    row(Feature::DVD_READ, 0, Current::With(Profile::DVD_ROM), |_| Vec::new()),
    row(Feature::POWER_MANAGEMENT, 0, Current::Always, |_| Vec::new()),
    row(Feature::TIMEOUT, 0, Current::Always, |_| Vec::new()),
];

const fn row(
    feature: Feature,
    version: u8,
    current: Current,
    body: fn(Profile) -> Vec<u8>,
) -> FeatureRow {
    FeatureRow { feature, version, current, body }
}

pub fn tell(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: GetConfiguration = context.cdb();
    let profile = profile(context.unit);
    let starting = Feature(cdb.starting_feature.get());
    let is_wanted = |row: &&FeatureRow| match RequestedFeatures(cdb.requested & 0x03) {
        RequestedFeatures::FROM_STARTING => row.feature >= starting,
        RequestedFeatures::CURRENT => row.feature >= starting && row.is_current(profile),
        _ => row.feature == starting,
    };
    if RequestedFeatures(cdb.requested & 0x03).name().is_none() {
        return Err(Sense::field_bit(1, 1));
    }
    let mut features = Vec::new();
    for row in FEATURES.iter().filter(is_wanted) {
        row.describe(profile, &mut features);
    }
    let behind = size_of::<ConfigurationHeader>() - 4 + features.len();
    let header = ConfigurationHeader {
        length: (behind as u32).into(),
        reserved: 0.into(),
        profile: profile.0.into(),
    };
    let mut bytes = Vec::new();
    push(&mut bytes, &header);
    bytes.extend(features);
    Ok(bytes)
}

impl FeatureRow {
    fn is_current(&self, profile: Profile) -> bool {
        match self.current {
            Current::Always => true,
            Current::WithMedium => profile != Profile::NONE,
            Current::With(only) => profile == only,
        }
    }

    fn describe(&self, profile: Profile, bytes: &mut Vec<u8>) {
        let body = (self.body)(profile);
        let persistent = if self.current == Current::Always { PERSISTENT } else { 0 };
        let current = if self.is_current(profile) { CURRENT } else { 0 };
        let header = FeatureHeader {
            feature: self.feature.0.into(),
            flags: self.version << VERSION_SHIFT | persistent | current,
            length: body.len() as u8,
        };
        push(bytes, &header);
        bytes.extend(body);
    }
}

/// The profiles of the drive, the one with most abilities first.
fn profiles(current: Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    for profile in [Profile::DVD_ROM, Profile::CD_ROM] {
        let flags = if profile == current { CURRENT } else { 0 };
        push(&mut bytes, &ProfileDescriptor { profile: profile.0.into(), flags, reserved: 0 });
    }
    bytes
}

fn core(_: Profile) -> Vec<u8> {
    let mut bytes = INTERFACE_SCSI.to_be_bytes().to_vec();
    bytes.extend([DEVICE_BUSY_EVENTS, 0, 0, 0]);
    bytes
}

fn random_readable(profile: Profile) -> Vec<u8> {
    let feature = RandomReadable {
        block_size: (BLOCK_BYTES as u32).into(),
        // Blocks that are corrected as one.
        blocking: if profile == Profile::DVD_ROM { 16 } else { 1 }.into(),
        page_present: 1,
        reserved: 0,
    };
    let mut bytes = Vec::new();
    push(&mut bytes, &feature);
    bytes
}
