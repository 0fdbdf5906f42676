"""The family of encoder-decoders that a search draws from."""

from models.encdec.model import EncDec as EncDec
