"""Recommendations on the hot path: encoded for a whole batch, from pieces made once a model.

The wire bytes of each item id are made once for a model's item table; a batch's scores are one
float32 array whose bytes are cut, not packed. `Codec.encode` is the referee: a property test
holds the two together byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Codec
from schemas.varint import TimeEncoder, avro_bytes, zigzag

Encoder = Callable[..., list[bytes]]


def item_wire(items: Sequence[bytes]) -> list[bytes]:
    """The Avro string of each item id, for `encode_batch`."""
    return [avro_bytes(item) for item in items]


def recommendation_encoder(codec: Codec) -> Encoder:
    """The function `encode_batch`, bound to the schema id of `codec`."""
    header = codec.header("Recommendation") + zigzag(36)
    lengths = [zigzag(count) for count in range(256)]
    end = zigzag(0)
    time_wire = TimeEncoder().encode

    def encode_batch(
        event_ids: Sequence[bytes],
        user_ids: Sequence[bytes],
        clicked_at: Sequence[int],
        features_as_of: Sequence[int],
        wire_items: Sequence[bytes],
        indices: NDArray[np.int32],
        scores: NDArray[np.float32],
        label: str,
        arm: str,
        tier: str,
        scored_at: int,
    ) -> list[bytes]:
        """Wire bytes of one recommendation a row.

        `indices` int32 [rows, k] into `wire_items`, -1 after the last offered item;
        `scores` float32 [rows, k] beside it; times in ms since the epoch.
        """
        rows, k = indices.shape
        # The common answer is full; numpy's calls are worth it only where one is not.
        full = indices.size == 0 or bool(indices[:, -1].min() >= 0)
        counts = [k] * rows if full else (indices >= 0).sum(axis=1).tolist()
        index_rows = indices.tolist()
        score_bytes = np.ascontiguousarray(scores, dtype="<f4").tobytes()
        stride = 4 * k
        # reasons: an empty array
        middle = (
            end
            + end
            + avro_bytes(label.encode())
            + avro_bytes(arm.encode())
            + avro_bytes(tier.encode())
        )
        last = zigzag(scored_at)
        wire = wire_items.__getitem__
        join = b"".join
        out: list[bytes] = []
        for row in range(rows):
            count = counts[row]
            user = user_ids[row]
            ts = time_wire(clicked_at[row])
            as_of = ts if features_as_of[row] == clicked_at[row] else time_wire(features_as_of[row])
            length = len(user)
            if count:
                at = row * stride
                chosen = index_rows[row] if count == k else index_rows[row][:count]
                out.append(
                    join(
                        (
                            header,
                            event_ids[row],
                            lengths[length],
                            user,
                            lengths[count],
                            *map(wire, chosen),
                            end,
                            lengths[count],
                            score_bytes[at : at + 4 * count],
                            middle,
                            ts,
                            as_of,
                            last,
                        )
                    )
                )
            else:
                out.append(
                    join(
                        (
                            header,
                            event_ids[row],
                            lengths[length],
                            user,
                            end,
                            end,
                            middle[1:],
                            ts,
                            as_of,
                            last,
                        )
                    )
                )
        return out

    return encode_batch
