"""The four letters of Karpathy's essay: a recurrent net learns to spell "hello".

The net reads h, e, l, l and has to say e, l, l, o. After the first l the right answer is another l, after the
second it is o: the input alone does not tell, so the net has to remember. Takes a moment:

    python examples/hello.py
"""

from __future__ import annotations

import torch
from torch.nn import functional

from charrnn import Vocab
from charrnn.training import CharRNN
from charrnn.training.model import ModelShape

WORD = "hello"


def main() -> None:
    """Train until every next letter is right, and say so."""
    torch.manual_seed(1)
    vocab = Vocab.from_text(WORD)  # e, h, l, o
    tokens = torch.tensor(vocab.encode(WORD).astype("int64"))
    inputs, targets = tokens[None, :-1], tokens[None, 1:]  # (1, 4) each: one window of one stream
    model = CharRNN(ModelShape(len(vocab), cell="rnn", num_layers=1, hidden_size=3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    for step in range(1000):
        logits, _ = model(inputs, model.zero_state(1))  # (1, 4, V)
        loss = functional.cross_entropy(logits[0], targets[0])
        guesses = vocab.decode(logits[0].argmax(dim=1).numpy())
        is_right = guesses == WORD[1:]
        if step % 10 == 0 or is_right:
            print(
                f"step {step:3}: loss {loss.item():.3f} nats, after h, e, l, l it says {', '.join(guesses)}"
            )
        if is_right:
            print("every next letter is right")
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise SystemExit("not learnt in 1000 steps")


if __name__ == "__main__":
    main()
