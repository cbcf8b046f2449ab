"""Token ids of documents cut into the windows that a model reads: every document from the zero state.

Knows arrays of token ids, not text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from charrnn.training.config import TrainConfig
from charrnn.training.splits import Tokens
from charrnn.training.windows import Window, Windows, as_tensor

# Targets that are not there; what torch's cross_entropy leaves out.
PADDING = -100
# Documents of one batch differ in length by at most this part of bptt, so that little of it is padding.
_CLASSES = 4

Numbers = npt.NDArray[np.int64]


class DocumentWindows:
    """Batches of ``batch_size`` whole documents, each batch cut into windows of at most ``bptt``.

    A document is predicted from the end token, which the model reads first, to its own end token. Every epoch
    visits all documents once, in batches and an order of its own that follow from ``seed``. Documents of
    similar length come together; how many windows an epoch has is always the same.

    Args:
        tokens: ``(N,)``, documents one after another, each with ``end_token`` behind it.
    """

    def __init__(self, tokens: Tokens, end_token: int, *, batch_size: int, bptt: int, seed: int = 0) -> None:
        self._tokens, self._end_token, self._batch_size, self._seed = tokens, end_token, batch_size, seed
        self._stops = np.flatnonzero(tokens == end_token) + 1
        self._starts = np.concatenate(([0], self._stops[:-1]))
        self._lengths = self._stops - self._starts
        self._classes = -(-self._lengths * _CLASSES // bptt)
        # The longest of a batch decides; its class is the same in every epoch.
        last = np.minimum(np.arange(1, self._num_batches + 1) * batch_size, len(self._stops)) - 1
        self._num_windows = -(-np.sort(self._classes)[last] // _CLASSES)
        self._shuffle(0)

    @property
    def _num_batches(self) -> int:
        return -(-len(self._stops) // self._batch_size)

    @property
    def longest(self) -> int:
        """Tokens of the longest document, its end included."""
        return int(self._lengths.max())

    def __len__(self) -> int:
        """Windows in an epoch."""
        return int(self._num_windows.sum())

    def window(self, epoch: int, index: int) -> Window:
        """A window of an epoch; ``(B, T)`` with rows of padding where the last batch has fewer documents."""
        if epoch != self._epoch:
            self._shuffle(epoch)
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        documents = self._batches[number]
        length, count = int(self._lengths[documents].max()), int(self._counts[number])
        at = index - int(self._first[number])
        inputs, targets = self._cut(documents, at * length // count, (at + 1) * length // count)
        return Window(as_tensor(inputs), as_tensor(targets), at == 0, int((targets != PADDING).sum()))

    def _shuffle(self, epoch: int) -> None:
        """Documents of a class are dealt anew into batches, and the batches into a new order."""
        random = np.random.Philox(key=[self._seed % 2**64, epoch]).random_raw  # the same for ever
        order = np.lexsort((random(len(self._stops)), self._classes))
        places, size = np.argsort(random(self._num_batches), kind="stable"), self._batch_size
        self._epoch = epoch
        self._batches = [order[place * size : (place + 1) * size] for place in places]
        self._counts = self._num_windows[places]
        self._first = np.cumsum(self._counts) - self._counts

    def _cut(self, documents: Numbers, start: int, end: int) -> tuple[Numbers, Numbers]:
        """The symbols ``start`` to ``end`` of documents, and those before them."""
        targets = np.full((self._batch_size, end - start), PADDING, np.int64)
        inputs = np.full((self._batch_size, end - start), self._end_token, np.int64)
        for row, document in enumerate(documents):
            first, stop = int(self._starts[document]), int(self._stops[document])
            found = self._tokens[first + start : min(first + end, stop)]
            targets[row, : len(found)] = found
            inputs[row, 1 : len(found)] = found[:-1]
            if start and len(found):
                inputs[row, 0] = self._tokens[first + start - 1]
        return inputs, targets


def training_windows(tokens: Tokens, end_token: int | None, config: TrainConfig) -> Windows | DocumentWindows:
    """What a run learns from: one text, or documents if there is a token that ends them."""
    if end_token is None:
        return Windows(tokens, config.batch_size, config.bptt)
    size = {"batch_size": config.batch_size, "bptt": config.bptt}
    return DocumentWindows(tokens, end_token, **size, seed=config.seed)
