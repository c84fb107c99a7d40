//! Unpacking what caches send. How much comes out is limited by whoever reads; how much memory it takes, here.

use std::io::{self, BufReader, Read};

use igloo_formats::nix::narinfo::Compression;

/// The largest window of zstd: what `zstd --long` takes without being asked for more.
const ZSTD_WINDOW: u32 = 27;
/// Memory for xz: a dictionary of 192 MiB, three times that of `xz -9`.
const XZ_MEMORY: u64 = 256 << 20;
/// Packed bytes are asked for in pieces of this length.
const BUFFER: usize = 128 << 10;

/// A reader of what `packed` was before it was packed. Several packed streams after one another count as one, as with
/// the tools of that name.
pub(super) fn decoder(how: Compression, packed: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let packed = BufReader::with_capacity(BUFFER, packed);
    Ok(match how {
        Compression::None => Box::new(packed),
        Compression::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        Compression::Lzip => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_lzip_decoder(XZ_MEMORY, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
        Compression::Brotli => Box::new(brotli_decompressor::Decompressor::new(packed, BUFFER)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
    })
}
