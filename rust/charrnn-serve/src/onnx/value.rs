//! Tensors over memory that someone else owns, and the call that runs a graph on them.
//!
//! ort's safe calls copy borrowed inputs or allocate outputs; at 15 us a step that is a fifth of the time.

use std::ffi::{c_char, c_void, CString};
use std::ptr::{self, NonNull};

use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::sys::{ONNXTensorElementDataType, OrtValue};
use ort::AsPointer;

/// A type of tensor element.
pub(super) trait Element: Copy {
    const TYPE: ONNXTensorElementDataType;
}

impl Element for f32 {
    const TYPE: ONNXTensorElementDataType = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

impl Element for i64 {
    const TYPE: ONNXTensorElementDataType = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
}

/// A tensor that borrows its data without the compiler's help.
pub(super) struct RawTensor(NonNull<OrtValue>);

impl RawTensor {
    /// Views `shape.product()` elements at `data`, in the memory that `info` describes.
    ///
    /// # Safety
    /// `data` is valid for that many elements for as long as the tensor lives: for reads if the graph reads it,
    /// for writes, and overlapping no other tensor of the run, if the graph writes it.
    pub(super) unsafe fn new<T: Element>(
        info: &MemoryInfo<'_>,
        data: *mut T,
        shape: &[usize],
    ) -> ort::Result<Self> {
        let num_bytes = shape.iter().product::<usize>() * size_of::<T>();
        let mut dims = [0_i64; 2];
        dims.iter_mut().zip(shape).for_each(|(dim, &len)| *dim = len as i64);
        let mut value = ptr::null_mut();
        // SAFETY: `info` is live, `dims` holds the shape (at most 2 axes), the caller answers for `data`.
        unsafe {
            let create = ort::api().CreateTensorWithDataAsOrtValue;
            let data = data.cast::<c_void>();
            let status = create(info.ptr(), data, num_bytes, dims.as_ptr(), shape.len(), T::TYPE, &mut value);
            ort::Error::result_from_status(status)?;
        }
        NonNull::new(value).map(RawTensor).ok_or_else(|| ort::Error::new("ONNX Runtime made no tensor"))
    }
}

impl Drop for RawTensor {
    fn drop(&mut self) {
        // SAFETY: the value is ours and nothing else releases it; its data is not freed with it.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// Graph input or output names, in the order in which tensors are passed.
pub(super) struct Names(Vec<CString>);

impl Names {
    /// `None` if a name holds a NUL, which no ONNX name does.
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Option<Self> {
        names.into_iter().map(CString::new).collect::<Result<_, _>>().ok().map(Names)
    }

    fn pointers(&self) -> Vec<*const c_char> {
        self.0.iter().map(|name| name.as_ptr()).collect()
    }
}

/// Runs the graph once, on the calling thread.
pub(super) fn run(
    session: &mut Session,
    inputs: (&Names, &[RawTensor]),
    outputs: (&Names, &mut [RawTensor]),
) -> ort::Result<()> {
    let (input_names, inputs) = (inputs.0.pointers(), inputs.1);
    let (output_names, outputs) = (outputs.0.pointers(), outputs.1);
    assert!(input_names.len() == inputs.len() && output_names.len() == outputs.len());
    let inputs: Vec<*const OrtValue> = inputs.iter().map(|value| value.0.as_ptr().cast_const()).collect();
    let mut outputs: Vec<*mut OrtValue> = outputs.iter().map(|value| value.0.as_ptr()).collect();
    // SAFETY: every pointer is live over the call and the lengths are those of the arrays; the session is
    // borrowed mutably, so no other thread runs it; no run options is the default.
    unsafe {
        let status = (ort::api().Run)(
            session.ptr_mut(),
            ptr::null(),
            input_names.as_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            output_names.as_ptr(),
            output_names.len(),
            outputs.as_mut_ptr(),
        );
        ort::Error::result_from_status(status)
    }
}
