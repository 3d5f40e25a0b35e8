//! READ BUFFER and WRITE BUFFER (SPC-4 6.18, 6.49): the echo buffer of a nexus, with which a path
//! is tested, and descriptors that say that there is no other one. There is no microcode to load.

use wire::scsi::AdditionalSense;
use wire::scsi::cdb::Buffer10;

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;

const MODE: u8 = 0x1f;
const DESCRIPTOR: u8 = 0x03;
const ECHO: u8 = 0x0a;
const ECHO_DESCRIPTOR: u8 = 0x0b;

/// Size of the echo buffer; 4,096 is the most that its descriptor can say (SPC-4 6.18.9).
const ECHO_BYTES_MAX: usize = 4096;

pub fn read(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Buffer10 = context.cdb();
    match cdb.mode & MODE {
        // Offset boundary and capacity of a buffer that has none.
        DESCRIPTOR => Ok(vec![0; 4]),
        ECHO => match context.unit.echo.borrow().as_deref() {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(Sense::illegal(AdditionalSense::COMMAND_SEQUENCE_ERROR)),
        },
        ECHO_DESCRIPTOR => {
            let [high, low] = (ECHO_BYTES_MAX as u16).to_be_bytes();
            Ok(vec![0, 0, high, low])
        }
        _ => Err(Sense::field_bit(1, 4)),
    }
}

pub fn write<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let cdb: Buffer10 = context.cdb();
        if cdb.mode & MODE != ECHO {
            return Err(Sense::field_bit(1, 4).into());
        }
        let list = context.parameters()?;
        if list.len() > ECHO_BYTES_MAX {
            return Err(Sense::field(6).into());
        }
        context.unit.echo.replace(Some(list.into()));
        Ok(Vec::new())
    })
}
