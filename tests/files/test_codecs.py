"""Bit packing, gaps, Huffman and ANS: every stream comes back, and is as short as theory says."""

import heapq
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compedu.files import ans, bits, gaps, huffman, sections, streams
from compedu.files.alphabet import entropy, read_symbols, symbols_bits, write_symbols
from compedu.files.buffers import Reader, varint
from compedu.files.streams import Stream, table_bytes
from compedu.forms import Codes, Floats, Positions

CODERS = (huffman, ans)
few = settings(max_examples=60, deadline=None)


def skewed(count: int, symbols: int, seed: int = 0) -> np.ndarray:
    """A stream whose symbol i is about 2^-i times as frequent, mixed."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.5, count) - 1, symbols - 1).astype(np.uint16)


def bell(count: int, width: int, seed: int = 0) -> np.ndarray:
    """A stream of `width`-bit codes as a quantized layer has them."""
    rng = np.random.default_rng(seed)
    return np.clip(np.round(rng.normal(2 ** (width - 1), 2**width / 8, count)), 0, 2**width - 1).astype(np.uint16)


@st.composite
def codes_of_some_width(draw):
    width = draw(st.integers(1, 16))
    return width, draw(arrays(np.uint16, st.integers(0, 70), elements=st.integers(0, 2**width - 1)))


streams_of_symbols = st.one_of(
    arrays(np.uint16, st.integers(0, 300), elements=st.integers(0, 65535)),
    arrays(np.uint16, st.integers(0, 300), elements=st.sampled_from([0, 1, 2, 250, 65535])),
    st.builds(np.full, st.integers(1, 300), st.integers(0, 65535).map(np.uint16)),
)


# Bits


@few
@given(codes_of_some_width())
def test_packed_codes_are_their_binary_digits_in_order(case):
    width, codes = case
    digits = "".join(f"{code:0{width}b}" for code in codes.tolist())
    data = bits.pack(codes, width)
    assert len(data) == bits.packed_bytes(width, len(codes)) == -(-len(digits) // 8)
    assert "".join(f"{byte:08b}" for byte in data).startswith(digits)
    assert np.array_equal(bits.unpack(data, width, len(codes)), codes)


def test_codes_that_do_not_fit_are_refused():
    for codes, width in ([4], 2), ([-1], 8), ([1], 0), ([0], 17), ([256], 8):
        with pytest.raises(ValueError, match="bits"):
            bits.pack(np.array(codes), width)
    with pytest.raises(ValueError, match="3 numbers of 5 bits need 2 bytes, got 1"):
        bits.unpack(b"\0", 5, 3)


@few
@given(st.lists(st.tuples(st.integers(1, 32), st.integers(0, 2**32 - 1)), max_size=200))
def test_words_of_mixed_lengths_follow_each_other_bit_by_bit(pairs):
    lengths = np.array([length for length, _ in pairs], np.int64)
    words = np.array([word % 2**length for length, word in pairs], np.uint64)
    digits = "".join(f"{int(word):0{length}b}" for word, length in zip(words, lengths, strict=True))
    data = bits.pack_words(words, lengths)
    assert len(data) == -(-len(digits) // 8)
    assert "".join(f"{byte:08b}" for byte in data).startswith(digits)


def test_words_are_the_same_across_the_borders_of_chunks():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 33, bits.CHUNK + 1000)
    words = rng.integers(0, 2**32, len(lengths), dtype=np.uint64) & ((1 << lengths.astype(np.uint64)) - np.uint64(1))
    digits = "".join(f"{int(word):0{length}b}" for word, length in zip(words, lengths, strict=True))
    assert "".join(f"{byte:08b}" for byte in bits.pack_words(words, lengths)).startswith(digits)


@given(st.integers(0, 2**63 - 1))
def test_whole_numbers_come_back(number):
    reader = Reader(varint(number) + b"rest")
    assert reader.varint() == number and reader.left == 4


def test_nothing_is_read_past_the_end():
    for broken in (lambda reader: reader.take(3), lambda reader: reader.take(-1), Reader.varint):
        with pytest.raises(ValueError):
            broken(Reader(b"\xff\xff"))
    with pytest.raises(ValueError, match="64 bits"):
        Reader(b"\xff" * 11).varint()


# Gaps


@few
@given(st.sets(st.integers(0, 3000), max_size=80), st.integers(1, 16))
def test_positions_come_back_from_gaps_with_fillers(chosen, width):
    positions = np.array(sorted(chosen), np.int64)
    codes = gaps.to_gaps(positions, width)
    assert codes.max(initial=0) < 2**width
    assert np.array_equal(gaps.from_gaps(codes, width), positions)
    assert (codes == 2**width - 1).sum() == len(codes) - len(positions)


def test_a_long_gap_is_bridged_by_a_filler():
    # Figure 2 of Han et al. (2016): weights at 1, 4 and 15 with gaps of 3 bits need one filler before the last.
    assert gaps.to_gaps(np.array([1, 4, 15]), 3).tolist() == [1, 2, 7, 3]


def test_gaps_of_one_bit_are_a_bitmap():
    assert gaps.to_gaps(np.array([0, 2, 3, 6]), 1).tolist() == [0, 1, 0, 0, 1, 1, 0]


@few
@given(st.sets(st.integers(0, 3000), min_size=1, max_size=200))
def test_the_chosen_gap_width_gives_the_fewest_bits(chosen):
    positions = np.array(sorted(chosen), np.int64)
    width = gaps.best_width(positions, lambda counts, width: int(counts.sum()) * width)
    lengths = {w: w * len(gaps.to_gaps(positions, w)) for w in range(1, 17)}
    assert lengths[width] == min(lengths.values())


@few
@given(st.sets(st.integers(0, 3000), min_size=1, max_size=200), st.integers(1, 16))
def test_gap_codes_are_counted_without_writing_them(chosen, width):
    skipped, counts = np.unique(gaps.distances(np.array(sorted(chosen))), return_counts=True)
    written = np.bincount(gaps.to_gaps(np.array(sorted(chosen)), width), minlength=2**width)
    assert np.array_equal(gaps.gap_counts(skipped, counts, width), written)


def test_unsorted_positions_are_refused():
    for positions in ([3, 2], [1, 1], [-1, 4]):
        with pytest.raises(ValueError, match="sorted"):
            gaps.to_gaps(np.array(positions), 4)


@few
@given(st.sets(st.integers(0, 65535), min_size=1, max_size=300))
def test_alphabets_come_back(chosen):
    symbols = np.array(sorted(chosen))
    data = write_symbols(symbols)
    assert np.array_equal(read_symbols(Reader(data)), symbols)
    assert abs(symbols_bits(symbols) - 8 * len(data)) <= 24


# Huffman


def least_mean_length(counts: list[int]) -> int:
    """The total length under the best prefix-free code, by trying all lengths that Kraft's inequality allows."""
    number = len(counts)
    allowed = (ls for ls in product(range(1, number + 1), repeat=number) if sum(2.0**-length for length in ls) <= 1)
    return min(sum(length * count for length, count in zip(ls, counts, strict=True)) for ls in allowed)


@few
@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_huffman_lengths_are_the_best_of_all_prefix_free_codes(counts):
    assert huffman.code_lengths(np.array(counts)) @ counts == least_mean_length(counts)


@few
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=300))
def test_huffman_lengths_cost_what_merging_by_a_heap_costs(counts):
    heap, total = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    assert huffman.code_lengths(np.array(counts)) @ counts == total


@few
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_no_word_begins_another_and_the_mean_length_is_near_the_entropy(counts):
    counts = np.array(counts)
    lengths = huffman.code_lengths(counts)
    words = [f"{int(word):0{length}b}" for word, length in zip(huffman.canonical_words(lengths), lengths, strict=True)]
    assert [len(word) for word in words] == lengths.tolist()
    assert not any(a != b and b.startswith(a) for a in words for b in words) and len(set(words)) == len(words)
    mean = lengths @ counts / counts.sum()
    assert entropy(counts) - 1e-9 <= mean < entropy(counts) + 1


@pytest.mark.parametrize("limit", [5, 8, 12])
def test_words_keep_the_limit_of_their_length(limit):
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert huffman.code_lengths(np.array(fibonacci)).max() == 29
    lengths = huffman.code_lengths(np.array(fibonacci), limit)
    assert lengths.max() == limit and (2.0**-lengths).sum() == 1
    with pytest.raises(ValueError, match="do not fit"):
        huffman.code_lengths(np.ones(2**limit + 1, np.int64), limit)


def test_canonical_words_are_those_of_the_textbook():
    # RFC 1951, section 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) give these words.
    words = huffman.canonical_words(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert words.tolist() == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


def test_a_table_that_is_no_prefix_free_code_is_refused():
    table = write_symbols(np.arange(3)) + bytes([1, 0])  # three words of one bit
    with pytest.raises(ValueError, match="prefix-free"):
        huffman.decode(table + b"\0", 4)


def test_words_that_end_too_early_are_refused():
    data = huffman.encode(bell(100, 4))
    reader = Reader(data)
    huffman.read_table(reader)
    for length in range(reader.position, len(data)):
        with pytest.raises(ValueError, match="end before"):
            huffman.decode(data[:length], 100)
    with pytest.raises(ValueError, match="end before or after"):
        huffman.decode(data + b"\0", 100)


def read_bit_by_bit(data: bytes, count: int) -> list[int]:
    """Huffman decoding as the textbook has it: a bit at a time, until the bits read so far are a word."""
    reader = Reader(data)
    symbols, lengths = huffman.read_table(reader)
    words = {
        (int(length), int(word)): int(symbol)
        for symbol, length, word in zip(symbols, lengths, huffman.canonical_words(lengths), strict=True)
    }
    left, out = "".join(f"{byte:08b}" for byte in reader.take(reader.left)), []
    while len(out) < count:
        length = next(length for length in range(1, 33) if (length, int(left[:length], 2)) in words)
        out.append(words[length, int(left[:length], 2)])
        left = left[length:]
    return out


@pytest.mark.parametrize("stretch", [1, 2, 7, 2**15])
def test_words_are_read_across_the_ends_of_stretches(stretch, monkeypatch):
    monkeypatch.setattr(huffman, "STRETCH", stretch)
    fibonacci = np.repeat(np.arange(16), [max(1, round(1.6**place)) for place in range(16)])  # words of 1 to 15 bits
    stream = np.random.default_rng(0).permutation(fibonacci)
    data = huffman.encode(stream)
    assert huffman.decode(data, len(stream)).tolist() == stream.tolist() == read_bit_by_bit(data, len(stream))


def test_a_long_stream_in_few_bytes_is_refused_before_it_is_allocated():
    data = huffman.encode(bell(100, 4))
    with pytest.raises(ValueError, match="end before"):
        huffman.decode(data, 2**62)


# ANS


@few
@given(st.lists(st.integers(1, 10**7), min_size=2, max_size=300))
def test_probabilities_are_whole_and_add_up_to_one(counts):
    weights = ans._weights(*ans._rounded(np.array(counts)))
    assert weights.min() >= 1 and weights.sum() == 2**24


@few
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=300))
def test_rounded_frequencies_cost_less_than_nine_bits_a_symbol_of_the_alphabet(counts):
    counts = np.array(counts)
    weights = ans._weights(*ans._rounded(counts))
    per_symbol = counts @ (24 - np.log2(weights)) / counts.sum()
    # Frequencies wrong by at most 2^-(m+1) cost at most 4^-m / (8 ln 2) bits each time, and 4^m >= N / (48 n); without
    # a mantissa, half of them doubled against the rest, 0.085. The last term is for m = 7, the most there is.
    bound = min(0.085, 9 * len(counts) / counts.sum()) + 2e-5
    assert entropy(counts) - 1e-6 <= per_symbol <= entropy(counts) + bound


def decode_by_whole_numbers(data: bytes, count: int) -> list[int]:
    """ANS with a state of 64 bits, words of 32 and probabilities in units of 2^-24, in Python's integers."""
    reader = Reader(data)
    symbols, *rounded = ans.read_table(reader)
    weights = ans._weights(*rounded).tolist()
    below = np.concatenate([[0], np.cumsum(weights)])
    number = reader.take(reader.left)
    words = np.frombuffer(number + bytes(-len(number) % 4), "<u4").tolist()
    state, out = 0, []
    while words and state < 2**32:
        state = state << 32 | words.pop()
    for _ in range(count):
        within = state % 2**24
        rank = int(np.searchsorted(below, within, side="right")) - 1
        out.append(int(symbols[rank]))
        state = (state >> 24) * weights[rank] + within - int(below[rank])
        if state < 2**32 and words:
            state = state << 32 | words.pop()
    assert state == 0 and not words
    return out


@settings(max_examples=25, deadline=None)
@given(streams_of_symbols.filter(lambda stream: len(set(stream.tolist())) > 1))
def test_ans_is_decoded_by_whole_numbers_alone(stream):
    assert decode_by_whole_numbers(ans.encode(stream), len(stream)) == stream.tolist()


@pytest.mark.parametrize("width", [2, 4, 8])
def test_ans_reaches_the_entropy_within_one_percent(width):
    stream = bell(50_000, width)
    counts = np.bincount(stream)
    data = ans.encode(stream)
    ideal = entropy(counts) * len(stream) / 8
    assert ideal <= len(data) <= 1.01 * ideal + 16
    assert len(data) - table_bytes(data, "ans") <= 1.001 * ideal + 8


def test_ans_goes_below_one_bit_per_symbol_where_huffman_cannot():
    stream = (np.random.default_rng(0).random(40_000) < 0.02).astype(np.uint8)
    ideal = entropy(np.bincount(stream)) * len(stream) / 8
    assert len(ans.encode(stream)) < 1.01 * ideal + 16 < len(huffman.encode(stream)) / 5


def test_a_wrong_number_of_symbols_is_noticed():
    data = ans.encode(bell(1000, 5))
    with pytest.raises(ValueError, match="not empty"):
        ans.decode(data, 900)


# Both entropy coders


@pytest.mark.parametrize("coder", CODERS)
@few
@given(stream=streams_of_symbols)
def test_every_stream_comes_back(coder, stream):
    data = coder.encode(stream)
    assert np.array_equal(coder.decode(data, len(stream)), stream)
    assert table_bytes(data, coder.__name__.rpartition(".")[2]) <= len(data)


@pytest.mark.parametrize("coder", CODERS)
def test_streams_at_the_edges_come_back(coder):
    rng = np.random.default_rng(0)
    every = rng.permutation(2**16).astype(np.uint16)
    edges = [
        np.zeros(0, np.uint16),
        np.array([7]),
        np.array([65535]),
        np.array([0, 65535]),
        np.zeros(10**6, np.uint8),
        every,
        np.concatenate([every, np.zeros(10**6, np.uint16)]),
        np.repeat([0, 1], [10**6, 1]),
        np.repeat([1, 0], [10**6, 1]),
    ]
    for stream in edges:
        assert np.array_equal(coder.decode(coder.encode(stream), len(stream)), stream)
    assert coder.encode(edges[0]) == b"" and len(coder.encode(edges[4])) < 10


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("stream", [bell(20_000, 4), bell(20_000, 8), skewed(5000, 40), bell(30, 3), bell(20_000, 14)])
def test_sizes_are_foretold_from_the_counts(coder, stream):
    assert coder.size_bits(np.bincount(stream)) / 8 == pytest.approx(len(coder.encode(stream)), rel=0.001, abs=6)


# Streams and parts


@pytest.mark.parametrize("coding", streams.CODINGS)
@few
@given(case=codes_of_some_width())
def test_a_stream_is_never_longer_than_packed(coding, case):
    width, codes = case
    data, length = streams.write(Stream(codes, width), coding)
    assert len(data) <= bits.packed_bytes(width, len(codes)) and length in (0, len(data))
    back = streams.read(Reader(data), len(codes), width, length, coding)
    assert np.array_equal(back.stream.symbols, codes) and back.bytes == len(data)


def test_a_coded_stream_that_contradicts_itself_is_refused():
    data, length = streams.write(Stream(skewed(400, 16), 4), "ans")
    assert length
    with pytest.raises(ValueError, match="of 2 bits"):
        streams.read(Reader(data), 400, 2, length, "ans")
    with pytest.raises(ValueError, match="packed file"):
        streams.read(Reader(data), 400, 4, length, "packed")


def test_sixteen_weights_in_four_clusters_take_a_third_of_their_bytes():
    # Han et al. (2016), section 3: 16 * 32 / (4 * 32 + 16 * 2) = 3.2.
    indices = torch.tensor([3, 0, 2, 1, 1, 1, 0, 3, 0, 3, 1, 0, 3, 1, 2, 2]).reshape(4, 4)
    centroids = torch.tensor([-1.0, 0.0, 1.5, 2.0])
    _, codes = sections.write("codes", Codes(indices, 2, signed=False), "packed")
    _, book = sections.write("codebook", Floats(centroids, "codebook"), "packed")
    assert 16 * 4 / (len(codes) + len(book)) == 3.2


@pytest.mark.parametrize("coding", streams.CODINGS)
@pytest.mark.parametrize("dtype", sections.DTYPES, ids=str)
def test_numbers_of_every_type_come_back_bit_by_bit(coding, dtype):
    every_pattern = torch.randint(0, 256, (6, 50 * dtype.itemsize), generator=torch.Generator().manual_seed(0))
    patterns = every_pattern.to(torch.uint8) % 2 if dtype == torch.bool else every_pattern.to(torch.uint8)
    weights = torch.randn(30, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    special = torch.tensor([0.0, -0.0, 1e-40, float("inf"), -float("inf"), float("nan")], dtype=torch.float64)
    special = special if dtype.is_floating_point else torch.arange(6)
    for tensor in (patterns.view(dtype), weights, special.to(dtype), weights[:0], weights[0, 0], weights.T):
        record, data = sections.write("weight", Floats(tensor), coding)
        back = sections.read(record, Reader(data), coding).tensor
        assert back.dtype == dtype and back.shape == tensor.shape
        assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("coding", streams.CODINGS)
@few
@given(data=st.data())
def test_codes_and_positions_come_back(coding, data):
    width, signed = data.draw(st.integers(1, 16)), data.draw(st.booleans())
    lowest = -(2 ** (width - 1)) if signed else 0
    codes = data.draw(arrays(np.int64, (3, 7), elements=st.integers(lowest, lowest + 2**width - 1)))
    chosen = data.draw(st.sets(st.integers(0, 999), max_size=60))
    for part in (Codes(torch.from_numpy(codes), width, signed), Positions(torch.tensor(sorted(chosen)).long(), 1000)):
        record, written = sections.write("part", part, coding)
        reader = Reader(written)
        assert torch.equal(sections.read(record, reader, coding).tensor.long(), part.tensor) and reader.left == 0


def test_codes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"codes -9\.\.7 do not fit in 4 signed bits"):
        sections.write("codes", Codes(torch.tensor([-9, 7]), 4, signed=True), "packed")
    with pytest.raises(ValueError, match="complex64 cannot be stored"):
        sections.write("weight", Floats(torch.zeros(2, dtype=torch.complex64)), "packed")


def test_entropy_coding_shortens_the_exponents_of_floats_only():
    weights = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    record, data = sections.write("weight", Floats(weights), "ans")
    assert record.lengths[0] < 20_000 / 2 and record.lengths[2:] == (0, 0)
    assert len(data) < 0.85 * 4 * 20_000


def test_a_mask_costs_no_more_than_its_entropy():
    kept = (torch.rand(100_000, generator=torch.Generator().manual_seed(0)) < 0.1).nonzero().squeeze(1)
    share = len(kept) / 100_000
    ideal = entropy(np.array([len(kept), 100_000 - len(kept)])) * 100_000 / 8
    sizes = {coding: len(sections.write("mask", Positions(kept, 100_000), coding)[1]) for coding in streams.CODINGS}
    assert share == pytest.approx(0.1, abs=0.01)
    assert ideal <= sizes["ans"] <= 1.01 * ideal + 16
    assert sizes["ans"] < sizes["huffman"] < sizes["packed"] < 1.1 * ideal
