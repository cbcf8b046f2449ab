//! How many texts each client has under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::status::Refusal;

/// Counts the seats of clients, over all models.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    max_streams: Option<usize>,
    /// Of clients that have any.
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

impl Clients {
    pub(crate) fn new(max_streams: Option<usize>) -> Self {
        Clients { max_streams, taken: Mutex::default() }
    }

    /// A place for one text of `client`, at once or not at all. Without a cap nothing is counted.
    pub(crate) fn enter(self: &Arc<Self>, client: &Arc<str>) -> Result<Seat, Refusal> {
        let Some(max) = self.max_streams else { return Ok(Seat(None)) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(Arc::clone(client)).or_default();
        if *count >= max {
            return Err(Refusal::ClientFull { max });
        }
        *count += 1;
        Ok(Seat(Some((Arc::clone(self), Arc::clone(client)))))
    }

    fn leave(&self, client: &Arc<str>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(client)),
        }
    }
}

/// A text's place; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Seat(Option<(Arc<Clients>, Arc<str>)>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((clients, client)) = &self.0 {
            clients.leave(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_client_has_so_many_seats_and_gets_them_back() {
        let clients = Arc::new(Clients::new(Some(2)));
        let seats: Vec<_> = (0..2).map(|_| clients.enter(&client("greedy")).expect("room")).collect();
        assert!(matches!(clients.enter(&client("greedy")), Err(Refusal::ClientFull { max: 2 })));
        let polite = clients.enter(&client("polite")).expect("its own room");
        drop(seats);
        clients.enter(&client("greedy")).expect("room again");
        drop(polite);
        assert!(clients.taken.lock().expect("no panic").is_empty(), "clients that are gone are forgotten");
    }
}
