"""What a model is made of. Knows no torch, so that command-line help stays quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from genomamba.errors import ConfigError

MIXERS = ("mamba", "mamba2", "s4d", "attention", "gru")
Strategy = Literal["add", "ew_multiply", "concat"]
Pooling = Literal["mean", "max", "last", "attention", "regions"]
Reading = Literal["both", "given", "joined"]
StrandOrder = Literal["kept", "swapped"]
Link = Literal["identity", "log"]


@dataclass(frozen=True)
class ModelConfig:
    """A language model over bases: causal or in both directions, of one strand or equivariant to both.

    Attributes:
        d_model: channels of the residual stream, D.
        n_layer: number of blocks.
        d_state: states per channel, N.
        d_conv: taps of the causal convolution.
        expand: d_inner = expand * d_model.
        dt_rank: rank of the projection to dt; null means ceil(d_model / 16).
        dt_min: smallest initial step size softplus(dt bias).
        dt_max: largest initial step size.
        dropout: probability of dropping a channel of a block's output in training.
        drop_path: probability that a row skips a block's branch in training.
        norm_eps: epsilon of RMSNorm.
        vocab_size: ids that the alphabet uses.
        pad_vocab_size_multiple: the embedding has vocab_size rounded up to this.
        tie_embeddings: whether the output head is the embedding.
        layers: the mixer of each block, from mamba, mamba2, s4d, attention and gru, such as
            ``mamba*7 attention``; repeated until it fills n_layer.
        bias: whether the projections into and out of a mixer have biases.
        conv_bias: whether the convolution has one.
        rms_norm: RMSNorm; otherwise LayerNorm.
        d_mlp: width of a gated MLP after each mixer; 0 for none.
        headdim: channels per head of mamba2 and attention.
        ngroups: mamba2: groups of heads that share B and C.
        d_ssm: mamba2: channels of d_inner that are scanned, the others being a gated MLP; null means all.
        gated_norm: mamba2: RMSNorm before the output projection.
        norm_before_gate: mamba2: norm first, then gate.
        D_per_channel: mamba2: a skip weight per channel instead of per head.
        dt_limit_min: mamba2: the step size is clamped to no less than this.
        dt_limit_max: mamba2: and to no more than this; null means infinity.
        ssd_tf32: mamba2: products as the original's kernels round them on a GPU; see `kernels.ssd`.
        window: attention: tokens that a token sees, itself included, in each direction; null means all.
        rotary_base: attention: base of the rotary positions' wavelengths.
        bidirectional: every mixer reads both ways.
        bidirectional_strategy: how the two readings are joined.
        bidirectional_weight_tie: both readings share their projections.
        rc_equivariant: parameters are shared between the strands (Caduceus-PS), so that the other strand's
            logits are this one's, complemented and reversed.
        rc_strand_order: ``kept``, or ``swapped`` before every block, as Caduceus' fused norm does.
        complement: id of each id's complement; null means that of the alphabet.
    """

    d_model: int = 128
    n_layer: int = 4
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | None = None
    dt_min: float = 0.001
    dt_max: float = 0.1
    dropout: float = 0.0
    norm_eps: float = 1e-5
    vocab_size: int = 12
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True
    layers: str = "mamba"
    bias: bool = False
    conv_bias: bool = True
    rms_norm: bool = True
    d_mlp: int = 0
    headdim: int = 64
    ngroups: int = 1
    d_ssm: int | None = None
    gated_norm: bool = True
    norm_before_gate: bool = False
    D_per_channel: bool = False
    dt_limit_min: float = 0.0
    dt_limit_max: float | None = None
    ssd_tf32: bool = False
    window: int | None = None
    rotary_base: float = 10000.0
    bidirectional: bool = False
    bidirectional_strategy: Strategy = "add"
    bidirectional_weight_tie: bool = True
    rc_equivariant: bool = False
    rc_strand_order: StrandOrder = "kept"
    complement: list[int] | None = None
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        positive = ("d_model", "n_layer", "d_state", "d_conv", "expand", "vocab_size", "pad_vocab_size_multiple")
        for field in (*positive, "headdim", "ngroups", "window", "d_ssm"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError("it must be at least 1", "raise it", field=f"model.{field}", value=value)
        if self.dt_rank is not None and self.dt_rank < 1:
            raise ConfigError(
                "it must be at least 1", "raise it or set null", field="model.dt_rank", value=self.dt_rank
            )
        if not 0 < self.dt_min <= self.dt_max:
            raise ConfigError("0 < dt_min <= dt_max must hold", "change one", field="model.dt_min", value=self.dt_min)
        if not self.norm_eps > 0:
            self._refuse("norm_eps", "it must be more than 0")
        for field in ("dropout", "drop_path"):
            if not 0 <= getattr(self, field) < 1:
                self._refuse(field, "it must lie in [0, 1)")
        mixers = set(layer_names(self.layers, self.n_layer))
        if "mamba2" in mixers:
            self._check_mamba2()
        if "attention" in mixers and (self.d_model % self.headdim or self.headdim % 2):
            self._refuse("headdim", "attention needs an even number that divides d_model")
        if self.complement is not None and (
            len(self.complement) != self.padded_vocab_size
            or not all(0 <= other < self.padded_vocab_size for other in self.complement)
        ):
            self._refuse("complement", f"it must hold {self.padded_vocab_size} ids")

    def _check_mamba2(self) -> None:
        if not 1 <= self.d_scanned <= self.d_inner:
            self._refuse("d_ssm", "it must not exceed expand * d_model")
        if self.d_scanned % self.headdim:
            self._refuse("headdim", f"it must divide the {self.d_scanned} channels that mamba2 scans")
        if (self.d_scanned // self.headdim) % self.ngroups:
            self._refuse("ngroups", f"it must divide the {self.d_scanned // self.headdim} heads")

    def check_vocabulary(self, ids: int) -> None:
        """Raises ConfigError where there is no embedding for each of so many ids, which are to be trained on."""
        if self.padded_vocab_size < ids:
            self._refuse("vocab_size", f"the alphabet has {ids} ids")

    def _refuse(self, field: str, problem: str) -> None:
        raise ConfigError(problem, "change it", field=f"model.{field}", value=getattr(self, field))

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def mixers(self) -> tuple[str, ...]:
        """The mixer of each block."""
        return layer_names(self.layers, self.n_layer)

    @property
    def d_scanned(self) -> int:
        """Channels that a mamba2 mixer scans."""
        return self.d_ssm if self.d_ssm is not None else self.d_inner

    @property
    def is_causal(self) -> bool:
        """Whether no output depends on a later token, so that the model can be run as a recurrence."""
        return not (self.bidirectional or self.rc_equivariant)

    @property
    def dt_rank_resolved(self) -> int:
        return self.dt_rank if self.dt_rank is not None else math.ceil(self.d_model / 16)

    @property
    def padded_vocab_size(self) -> int:
        multiple = self.pad_vocab_size_multiple
        return -(-self.vocab_size // multiple) * multiple


def layer_names(pattern: str, n_layer: int) -> tuple[str, ...]:
    """``mamba*2 attention`` for 6 blocks is mamba, mamba, attention, mamba, mamba, attention.

    Raises:
        ConfigError: an unknown mixer, or a pattern that does not fill n_layer in whole repeats.
    """
    names: list[str] = []
    for word in pattern.split():
        name, star, count = word.partition("*")
        if name not in MIXERS or (star and not (count.isdecimal() and int(count))):
            known = f"write names from {', '.join(MIXERS)}, each with an optional *count"
            raise ConfigError(f"it is not understood at {word}", known, field="model.layers", value=pattern)
        names += [name] * (int(count) if star else 1)
    if not names or n_layer % len(names):
        raise ConfigError(
            f"a pattern of {len(names)} does not fill {n_layer} layers in whole repeats",
            "change it or n_layer",
            field="model.layers",
            value=pattern,
        )
    return tuple(names * (n_layer // len(names)))


@dataclass(frozen=True)
class MaskingConfig:
    """Which bases a masked language model is to predict.

    Attributes:
        share: of bases that are to be predicted.
        hidden: of these, the share that [MASK] replaces.
        random: of these, the share that a random base replaces; the others stay.
    """

    share: float = 0.15
    hidden: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        for field in ("share", "hidden", "random"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ConfigError("it must lie in [0, 1]", "change it", field=f"masking.{field}", value=value)
        if self.hidden + self.random > 1:
            raise ConfigError(
                "hidden + random must not exceed 1", "change one", field="masking.hidden", value=self.hidden
            )


@dataclass(frozen=True)
class VariantHeadConfig:
    """The head that classifies variants.

    Attributes:
        d_hidden: width of the head's hidden layer; 0 for a linear head.
        dropout: applied to its features in training.
        flank: bases on either side of the allele whose hidden states are pooled.
    """

    d_hidden: int = 64
    dropout: float = 0.1
    flank: int = 16

    def __post_init__(self) -> None:
        for field, low, high in (("d_hidden", 0, math.inf), ("dropout", 0, 0.999), ("flank", 0, math.inf)):
            if not low <= getattr(self, field) <= high:
                span = f"between {low} and {high}" if high < math.inf else f"at least {low}"
                raise ConfigError(f"it must be {span}", "change it", field=f"head.{field}", value=getattr(self, field))


@dataclass(frozen=True)
class SequenceHeadConfig:
    """The head that answers for whole sequences.

    Attributes:
        pooling: how the hidden states of a sequence become one vector; by regions for what depends on where in the
            sequence something is, each being one of attention.
        strands: both: the answers for the sequence and for its reverse complement are averaged (training shows either);
            given: the sequence is read as it stands; joined: one head sees both strands' vectors, side by side, so that
            a causal model knows what follows each base and yet which strand was given.
        d_hidden: width of the head's hidden layer; 0 for a linear head.
        dropout: applied to the pooled vector, and to the hidden layer, in training.
        regions: how many there are, of pooling by regions.
    """

    pooling: Pooling = "mean"
    strands: Reading = "both"
    d_hidden: int = 0
    dropout: float = 0.1
    regions: int = 8

    def __post_init__(self) -> None:
        for field, known in (("pooling", get_args(Pooling)), ("strands", get_args(Reading))):
            value = getattr(self, field)
            if value not in known:
                raise ConfigError(
                    f"no such {field}", f"choose from {', '.join(known)}", field=f"head.{field}", value=value
                )
        for field, low, high in (("d_hidden", 0, math.inf), ("dropout", 0, 0.999), ("regions", 1, math.inf)):
            if not low <= getattr(self, field) <= high:
                span = f"between {low} and {high}" if high < math.inf else f"at least {low}"
                raise ConfigError(f"it must be {span}", "change it", field=f"head.{field}", value=getattr(self, field))
