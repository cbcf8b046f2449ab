//! The texts of a plan's requests alone, to compare those under load with.

use crate::client::Connections;
use crate::error::BenchError;
use crate::job::Jobs;
use crate::plan::Plan;
use crate::stream::read_text;

/// One text for each of the plan's distinct requests, each run when the one before has ended; none without `check`.
pub(crate) async fn solo_texts(plan: &Plan) -> Result<Vec<String>, BenchError> {
    let num_texts = if plan.check { plan.distinct.unwrap_or(0) } else { 0 };
    let (connections, jobs) = (Connections::new(plan)?, Jobs::new(plan.clone()));
    let mut texts = Vec::new();
    for number in 0..num_texts {
        texts.push(read_text(&connections, jobs.get(number)).await.map_err(BenchError::Solo)?);
    }
    Ok(texts)
}
