//! Is a graph the step graph of a model's shapes? Names, element types and dimensions.

use charrnn_core::ModelSpec;
use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

/// One input or output that the step graph must have: `(B,)` or `(B, width)`.
struct Port {
    name: String,
    element: TensorElementType,
    width: Option<usize>,
}

impl Port {
    fn floats(name: String, width: usize) -> Self {
        Port { name, element: TensorElementType::Float32, width: Some(width) }
    }
}

/// Names of the graph's inputs in the order in which they are passed.
pub(super) fn input_names(spec: &ModelSpec) -> Vec<String> {
    inputs(spec).into_iter().map(|port| port.name).collect()
}

/// Names of the graph's outputs in the order in which they are passed.
pub(super) fn output_names(spec: &ModelSpec) -> Vec<String> {
    outputs(spec).into_iter().map(|port| port.name).collect()
}

fn inputs(spec: &ModelSpec) -> Vec<Port> {
    let token = Port { name: "token".to_owned(), element: TensorElementType::Int64, width: None };
    let state = spec.state.iter().map(|tensor| Port::floats(tensor.name.clone(), tensor.width));
    std::iter::once(token).chain(state).collect()
}

fn outputs(spec: &ModelSpec) -> Vec<Port> {
    let logits = Port::floats("logits".to_owned(), spec.vocab_size);
    let state = spec.state.iter().map(|tensor| Port::floats(format!("{}_out", tensor.name), tensor.width));
    std::iter::once(logits).chain(state).collect()
}

/// What keeps the session's graph from being the step graph of `spec`, expected beside got.
pub(super) fn check(session: &Session, spec: &ModelSpec) -> Result<(), String> {
    check_ports("input", &inputs(spec), &named(session.inputs()))?;
    check_ports("output", &outputs(spec), &named(session.outputs()))
}

fn named(outlets: &[Outlet]) -> Vec<(&str, &ValueType)> {
    outlets.iter().map(|outlet| (outlet.name(), outlet.dtype())).collect()
}

fn check_ports(kind: &str, expected: &[Port], got: &[(&str, &ValueType)]) -> Result<(), String> {
    let type_of = |port: &Port| got.iter().find(|(name, _)| *name == port.name).map(|(_, dtype)| *dtype);
    let types: Option<Vec<&ValueType>> = expected.iter().map(type_of).collect();
    match types {
        Some(types) if got.len() == expected.len() => {
            expected.iter().zip(types).try_for_each(|(port, dtype)| check_port(kind, port, dtype))
        }
        _ => {
            let expected: Vec<&str> = expected.iter().map(|port| port.name.as_str()).collect();
            let got: Vec<&str> = got.iter().map(|(name, _)| *name).collect();
            Err(format!("expected the {kind}s {}; got {}", expected.join(", "), got.join(", ")))
        }
    }
}

fn check_port(kind: &str, port: &Port, got: &ValueType) -> Result<(), String> {
    let fits = match got {
        ValueType::Tensor { ty, shape, .. } => *ty == port.element && fits(port.width, shape),
        ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_) => false,
    };
    if fits {
        return Ok(());
    }
    let width = port.width.map(|width| format!(", {width}")).unwrap_or_default();
    Err(format!("expected {kind} {} to be Tensor<{}>(batch{width}); got {got}", port.name, port.element))
}

/// -1 is a dimension known only when the graph runs, as the batch must be.
fn fits(width: Option<usize>, shape: &[i64]) -> bool {
    match (width, shape) {
        (None, [-1]) => true,
        (Some(width), [-1, dim]) => *dim == -1 || *dim == width as i64,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use charrnn_core::StateTensor;
    use ort::value::{Shape, SymbolicDimensions};

    fn spec() -> ModelSpec {
        ModelSpec { vocab_size: 5, state: vec![StateTensor { name: "h0".to_owned(), width: 3 }] }
    }

    fn tensor(ty: TensorElementType, shape: &[i64]) -> ValueType {
        let dimension_symbols = SymbolicDimensions::new(shape.iter().map(|_| String::new()));
        ValueType::Tensor { ty, shape: Shape::new(shape.iter().copied()), dimension_symbols }
    }

    /// What is wrong with inputs `token` and `h0` of these types.
    fn problem(token: ValueType, h0: ValueType) -> Option<String> {
        check_ports("input", &inputs(&spec()), &[("h0", &h0), ("token", &token)]).err()
    }

    fn good_token() -> ValueType {
        tensor(TensorElementType::Int64, &[-1])
    }

    #[test]
    fn the_step_graph_passes_in_any_order() {
        assert_eq!(problem(good_token(), tensor(TensorElementType::Float32, &[-1, 3])), None);
    }

    #[test]
    fn types_ranks_widths_and_fixed_batches_are_refused() {
        let cases = [
            (TensorElementType::Float16, vec![-1, 3]),
            (TensorElementType::Float32, vec![-1, 4]),
            (TensorElementType::Float32, vec![-1]),
            (TensorElementType::Float32, vec![1, 3]),
        ];
        for (ty, shape) in cases {
            let problem = problem(good_token(), tensor(ty, &shape)).expect("refused");
            assert!(problem.starts_with("expected input h0 to be Tensor<f32>(batch, 3); got"), "{problem}");
        }
        let int32 = tensor(TensorElementType::Int32, &[-1]);
        let problem = problem(int32, tensor(TensorElementType::Float32, &[-1, 3])).expect("refused");
        assert_eq!(problem, "expected input token to be Tensor<i64>(batch); got Tensor<i32>(dyn)");
    }

    #[test]
    fn missing_and_extra_names_are_refused() {
        let (logits, h0) =
            (tensor(TensorElementType::Float32, &[-1, 5]), tensor(TensorElementType::Float32, &[-1, 3]));
        let missing = check_ports("output", &outputs(&spec()), &[("logits", &logits), ("h0", &h0)]);
        assert_eq!(missing, Err("expected the outputs logits, h0_out; got logits, h0".to_owned()));
        let extra = [("logits", &logits), ("h0_out", &h0), ("attention", &h0)];
        let extra = check_ports("output", &outputs(&spec()), &extra);
        assert_eq!(
            extra,
            Err("expected the outputs logits, h0_out; got logits, h0_out, attention".to_owned())
        );
    }
}
