"""Public corpora: what is known of them, and how they come to this machine.

Nothing is ever fetched but by ``charrnn data get`` or ``download``.
"""

from charrnn.data.catalogue import Corpus, read_catalogue
from charrnn.data.download import download

__all__ = ["Corpus", "download", "read_catalogue"]
