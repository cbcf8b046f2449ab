//! The processor that computes steps, and how ONNX Runtime is told.

use std::fmt;
use std::str::FromStr;

use ort::ep::{ExecutionProvider, CUDA};
use ort::session::builder::SessionBuilder;

use super::OrtError;

/// A processor that ONNX Runtime computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// One core a worker.
    #[default]
    Cpu,
    /// NVIDIA's GPU of this number.
    Cuda(u16),
}

/// The words are of no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device is {0:?}; it must be cpu, cuda, or cuda:N for the GPU of number N")]
pub struct UnknownDevice(String);

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(words: &str) -> Result<Self, UnknownDevice> {
        let number = |number: &str| number.parse().ok().filter(|_| !number.starts_with('+'));
        match (words, words.strip_prefix("cuda:").and_then(number)) {
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            (_, Some(number)) => Ok(Device::Cuda(number)),
            _ => Err(UnknownDevice(words.to_owned())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => formatter.write_str("cpu"),
            Device::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl Device {
    /// A builder of sessions on this device; never one that falls back to the CPU in silence, as ONNX Runtime would.
    pub(super) fn on(self, builder: SessionBuilder) -> Result<SessionBuilder, OrtError> {
        let Device::Cuda(number) = self else { return Ok(builder) };
        let failed = |reason: String| OrtError::Device { device: self, reason: one_line(&reason) };
        if !CUDA::is_available().map_err(|error| failed(error.to_string()))? {
            return Err(failed("this ONNX Runtime was built without CUDA".to_owned()));
        }
        // 19 bits of TF32 are not the fp32 that the model was exported as.
        let provider = CUDA::default().with_device_id(number.into()).with_tf32(false);
        let builder = builder.with_execution_providers([provider.build().error_on_failure()]);
        builder.map_err(|error| failed(error.to_string()))
    }
}

/// Without the place in ONNX Runtime's source that its messages begin with.
fn one_line(words: &str) -> String {
    let reason = words.rsplit(" : FAIL : ").next().unwrap_or(words);
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_about_the_device() {
        let said = "/onnx/bridge.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x.so\n with error";
        assert_eq!(one_line(said), "Failed to load library x.so with error");
        assert_eq!(one_line("no CUDA"), "no CUDA");
    }

    #[test]
    fn devices_are_read_as_they_are_written() {
        for (words, device) in
            [("cpu", Device::Cpu), ("cuda:0", Device::Cuda(0)), ("cuda:65535", Device::Cuda(65535))]
        {
            assert_eq!(words.parse(), Ok(device));
            assert_eq!(device.to_string(), words);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for words in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:65536", "cuda:a", "cpu:0"] {
            assert_eq!(words.parse::<Device>(), Err(UnknownDevice(words.to_owned())));
        }
    }
}
