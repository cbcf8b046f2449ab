"""Weights that another program trained, as a bundle.

    from charrnn.export.foreign import Foreign, import_weights
    import_weights(Foreign("model.npz", layout="keras", vocab="vocab.json"), "shakespeare")

``reader`` makes named arrays of a file or folder, ``layouts`` torch weights of named arrays, ``symbols`` a
vocabulary of a map; ``importer`` ties them together, scores texts and exports.
"""

from charrnn.export.foreign.importer import Foreign, TextScore, import_weights, read_foreign

__all__ = ["Foreign", "TextScore", "import_weights", "read_foreign"]
