#!/usr/bin/env python3
"""Decodes an encoded chunk, hot or cold, slowly: written from FORMAT.md alone, to prove that it can be.

read_chunk.py CHUNK PARENT KEPT writes the chunk's pages to standard output. PARENT holds the parent's pages of the same places, KEPT the
pages that DUP references count: what the references mean is up to whoever wrote them. Exits with 1 and a message if the chunk breaks a rule.

Python has no Zstandard decoder of its own before 3.14: the frames of cold chunks, and nothing else, go through the system's libzstd.so.1.
"""

import ctypes
import struct
import sys

PAGE, VECTORS, SLACK = 4096, 512, 32
MASK = (1 << 64) - 1


def must(holds, rule):
    if not holds:
        sys.exit(f"not a chunk of version 2: {rule}")


class Stream:
    """Bytes to be taken from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        must(self.at + count <= len(self.data), "a record ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def packed(self, count, bits):
        """`count` numbers of `bits` bits, from the lowest bit up; unused bits are zero."""
        whole = int.from_bytes(self.take((count * bits + 7) // 8), "little")
        must(whole >> (count * bits) == 0, "unused bits of packed numbers are not zero")
        return [whole >> (i * bits) & ((1 << bits) - 1) for i in range(count)]

    def numbers(self, count, size):
        data = self.take(count * size)
        return [int.from_bytes(data[i * size : (i + 1) * size], "little") for i in range(count)]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        must(self.at == len(self.data), "a record is too long")


def word_marked(record, dictionary):
    stream = Stream(record)
    planes = [stream.take(64) for _ in range(3)]
    tags = [sum((planes[b][v // 8] >> v % 8 & 1) << b for b in range(3)) for v in range(VECTORS)]
    of = [[v for v in range(VECTORS) if tags[v] == tag] for tag in range(8)]
    zero, literal, hot, known, small, partial32, partial16, repeat = of

    hot_numbers = stream.numbers(len(hot), 1)
    low = stream.numbers(len(known), 1)
    high = stream.packed(len(known), 4)
    known_numbers = [l | h << 8 for l, h in zip(low, high)]
    must(all(n < len(dictionary) for n in hot_numbers + known_numbers), "a dictionary number is too large")
    small_bits = stream.numbers(len(small), 2)
    bits32 = stream.numbers(len(partial32), 4)
    bits16 = stream.numbers(len(partial16), 2)
    with_base = partial32 + partial16 + repeat
    low = stream.numbers(len(with_base), 1)
    high = stream.packed(len(with_base), 1)
    base = {v: l | h << 8 for v, l, h in zip(with_base, low, high)}
    literals = stream.numbers(len(literal), 8)
    stream.end()

    vector = [0] * VECTORS
    for v, n in zip(hot, hot_numbers):
        vector[v] = dictionary[n]
    for v, n in zip(known, known_numbers):
        vector[v] = dictionary[n]
    for v, n in zip(small, small_bits):
        vector[v] = n
    for v, n in zip(literal, literals):
        vector[v] = n
    for v, n in zip(partial32, bits32):
        vector[v] = vector[base[v]] >> 32 << 32 | n
    for v, n in zip(partial16, bits16):
        vector[v] = vector[base[v]] >> 16 << 16 | n
    for v in repeat:
        vector[v] = vector[base[v]]
    return struct.pack("<512Q", *vector)


def markers():
    """What each marker stands for: (source, literals, length of the vector)."""
    rows = [
        ("new", [0], [*range(4, 19), 20, 22, 24, 28, 32]),
        ("new", [1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32]),
        ("new", [4, 5], [4, 5, 6, 7, 8, 9, 10, 12, 16]),
        ("new", [6, 7], [4, 5, 6, 7, 8, 10, 12]),
        ("new", [8, 9, 10, 11], [4, 5, 6, 7, 8]),
        ("new", [12, 13, 14, 15], [4, 5, 6, 8]),
        ("same", [0], [2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32]),
        ("same", [1], [2, 3, 4, 5, 6, 7, 8, 11, 14, 15, 16, 23, 31, 32]),
        ("same", [2], [3, 4, 5, 6, 7, 8, 10, 14, 16, 22, 30, 32]),
        ("same", [3], [3, 4, 5, 6, 8, 13, 16]),
        ("same", [4], [3, 4, 8, 12, 20]),
        ("same", [5, 6, 7], [3, 4, 6]),
        ("same", [8], [4, 8]),
        ("zero", [0], [3, 4, 5, 6, 7, 8, 12, 16, 24, 32]),
        ("zero", [1], [2, 3, 4, 5, 6, 7, 15]),
        ("zero", [2], [2, 3, 4, 5, 6, 14]),
        ("zero", [3], [3, 4, 5, 13]),
        ("zero", [4], [3, 4, 12]),
        ("zero", [5, 6], [3, 4]),
        ("zero", [7], [3]),
        ("none", [1, 2, 3, 4, 5, 6, 7, 8, 16, 32], [0]),
    ]
    return [(source, literals, length) for source, counts, lengths in rows for literals in counts for length in lengths]


MARKERS = markers()


def byte_marked(record):
    stream = Stream(record)
    (counts,) = stream.numbers(1, 3)
    steps = stream.numbers(counts & 0xFFF, 1)
    distances = Stream(stream.packed(counts >> 12, 12))
    literals = Stream(stream.rest())
    page, distance = bytearray(), 0
    for step in steps:
        must(step < len(MARKERS), "a marker does not exist")
        source, count, length = MARKERS[step]
        page += literals.take(count)
        if source == "new":
            (distance,) = distances.take(1)
        if source in ("new", "same"):
            start = len(page) - (distance + 32)
            page += bytes(page[i] if i >= 0 else 0 for i in range(start, start + length))
        else:
            page += bytes(length)
    distances.end()
    literals.end()
    return bytes(page)


def patched(record, parent):
    must(len(record) % 10 == 0, "a patch has another length than its vectors ask for")
    stream = Stream(record)
    count = len(record) // 10
    numbers, vectors = stream.numbers(count, 2), stream.numbers(count, 8)
    must(all(n < VECTORS for n in numbers) and numbers == sorted(set(numbers)), "the vectors of a patch do not ascend")
    page = list(struct.unpack("<512Q", parent))
    for number, vector in zip(numbers, vectors):
        page[number] = vector
    return struct.pack("<512Q", *page)


def decode(chunk, parent, kept):
    must(chunk[:4] in (b"BMC1", b"BMZ1"), "magic")
    pages = (hot if chunk[:4] == b"BMC1" else cold)(chunk, parent, kept)
    must(all(len(page) == PAGE for page in pages), "a page of another length")
    return b"".join(pages)


def front(chunk, name, most):
    """What both forms start with: the number of pages, of `name`, each page's kind, the ends of records, and what follows."""
    must(len(chunk) >= 24, "it is shorter than a header")
    _, version, pages, checksum, length, entries, reserved = struct.unpack_from("<4sHHQIHH", chunk)
    must(version == 2, "version")
    must(1 <= pages <= 512, "page_count")
    must(length == len(chunk), "encoded_bytes")
    must(entries <= (most or pages), name)
    must(reserved == 0, "reserved")
    must(checksum == xxh3_64(chunk[16:], int.from_bytes(chunk[:8], "little")), "checksum")
    body = Stream(chunk[24:])
    entry = body.numbers(pages, 4)
    ends = [0] + [e & 0xFFFFFFF for e in entry]
    must(ends == sorted(ends), "the ends of records")
    return pages, entries, [e >> 28 for e in entry], ends, body


def marked(kind, record, index, parent, kept):
    """A page of one of the kinds that both forms have, but for RAW."""
    of_parent = parent[index * PAGE : (index + 1) * PAGE]
    empty, eight = record == b"", len(record) == 8
    if kind in (0, 1):
        must(empty, "a record of a zero page")
        return bytes(PAGE)
    if kind == 2:
        must(eight, "the length of a fill")
        return record * VECTORS
    if kind == 3:
        must(eight, "the length of a reference")
        number = int.from_bytes(record, "little")
        return kept[number * PAGE : (number + 1) * PAGE]
    if kind == 4:
        must(empty, "a record of a page that is the parent's")
        return of_parent
    must(kind == 5, "a page of unknown kind")
    must(1 <= len(record) <= 4095, "the length of a record")
    return patched(record, of_parent)


def hot(chunk, parent, kept):
    pages, entries, kinds, ends, body = front(chunk, "dictionary_entries", 4096)
    dictionary = body.numbers(entries, 8)
    rest = body.rest()
    records, slack = rest[:-SLACK], rest[-SLACK:]
    must(slack == bytes(SLACK), "slack")
    must(ends[-1] == len(records), "the end of the last record")

    def page(index):
        kind, record = kinds[index], records[ends[index] : ends[index + 1]]
        if kind == 8:
            must(len(record) == PAGE, "the length of a raw page")
            return record
        if kind in (6, 7):
            must(1 <= len(record) <= 4095, "the length of a record")
            return word_marked(record, dictionary) if kind == 6 else byte_marked(record)
        return marked(kind, record, index, parent, kept)

    return [page(index) for index in range(pages)]


def cold(chunk, parent, kept):
    pages, unique, kinds, record_ends, body = front(chunk, "unique_pages", None)
    must(kinds.count(8) == unique, "unique_pages")
    ends = [0] + body.numbers((unique + 15) // 16, 4)
    records, groups = body.take(record_ends[-1]), body.rest()
    must(ends == sorted(ends) and ends[-1] == len(groups), "the ends of groups")
    content = b""
    for number, (start, end) in enumerate(zip(ends, ends[1:])):
        content += group(groups[start:end], PAGE * min(16, unique - 16 * number))
    raw = Stream(content)

    def page(index):
        kind, record = kinds[index], records[record_ends[index] : record_ends[index + 1]]
        if kind == 8:
            must(record == b"", "a record of a raw page")
            return raw.take(PAGE)
        return marked(kind, record, index, parent, kept)

    return [page(index) for index in range(pages)]


def group(coded, size):
    must(len(coded) <= size, "the length of a group")
    if len(coded) == size:
        return coded
    must(coded[:7] == bytes.fromhex("28b52ffd60") + struct.pack("<H", size - 256), "the header of a frame")
    at, last = 7, 0
    while not last:  # RFC 8878, 3.1.1.2: three bytes before each block, and a block of one repeated byte has one
        must(at + 3 <= len(coded), "a frame ends early")
        header = int.from_bytes(coded[at : at + 3], "little")
        last, is_run = header & 1, header >> 1 & 3 == 1
        at += 3 + (1 if is_run else header >> 3)
    must(at == len(coded), "the last block does not end where the group ends")
    return decompressed(coded, size)


def decompressed(frame, size):
    try:
        zstd = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        sys.exit(f"reading cold chunks needs the Zstandard library ({error}): apt-get install libzstd1")
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    content = ctypes.create_string_buffer(size)
    must(zstd.ZSTD_decompress(content, size, frame, len(frame)) == size, "a frame does not decompress to its pages")
    return content.raw


def xxh3_64(data, seed):
    """XXH3-64 of more than 240 bytes (the specification of xxHash, "XXH3 Algorithm for long inputs"): no golden chunk has fewer."""
    must(len(data) > 240, "this reader's checksum is for longer chunks only")
    p32 = [0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D]
    p64 = [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5]
    words = list(struct.unpack("<24Q", SECRET))
    secret = struct.pack("<24Q", *((w + (-seed if i % 2 else seed)) & MASK for i, w in enumerate(words)))
    acc = [p32[2], p64[0], p64[1], p64[2], p64[3], p32[1], p64[4], p32[0]]

    def accumulate(stripe, key_at):
        for i, (value, key) in enumerate(zip(struct.unpack("<8Q", stripe), struct.unpack_from("<8Q", secret, key_at))):
            mixed = value ^ key
            acc[i ^ 1] = (acc[i ^ 1] + value) & MASK
            acc[i] = (acc[i] + (mixed & 0xFFFFFFFF) * (mixed >> 32)) & MASK

    stripes = (len(data) - 1) // 64
    for stripe in range(stripes):
        accumulate(data[stripe * 64 : stripe * 64 + 64], stripe % 16 * 8)
        if stripe % 16 == 15:
            for i, key in enumerate(struct.unpack_from("<8Q", secret, 128)):
                acc[i] = ((acc[i] ^ acc[i] >> 47 ^ key) * p32[0]) & MASK
    accumulate(data[-64:], 192 - 64 - 7)

    result = len(data) * p64[0]
    keys = struct.unpack_from("<8Q", secret, 11)
    for i in range(0, 8, 2):
        product = (acc[i] ^ keys[i]) * (acc[i + 1] ^ keys[i + 1])
        result += product & MASK ^ product >> 64
    result &= MASK
    result = (result ^ result >> 37) * 0x165667919E3779F9 & MASK
    return result ^ result >> 32


SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)

if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.stdout.buffer.write(decode(*(open(path, "rb").read() for path in sys.argv[1:])))
