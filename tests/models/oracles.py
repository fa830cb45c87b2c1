"""Slow twins of the method's steps, in float64 NumPy and SciPy, written from the equations."""

import numpy as np
from scipy import ndimage


def float64(tensor):
    return np.asarray(tensor, dtype=np.float64)


def rollout_twin(queries, keys, *, scale, num_prefix, grid, rows="all", class_index=0):
    """Eq. 4-9 with every N x N matrix formed; also returns the whole row, prefix included."""
    weights = []
    for query, key in zip(queries, keys, strict=True):
        scores = scale * np.einsum("bhid,bhjd->bhij", float64(query), float64(key))
        exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights.append(exponentials / exponentials.sum(axis=-1, keepdims=True))
    return rollout_of_weights(weights, num_prefix=num_prefix, grid=grid, rows=rows, class_index=class_index)


def rollout_of_weights(weights, *, num_prefix, grid, rows="all", class_index=0):
    """Eq. 7-9 from L attention matrices (B, H, N, N), first layer first."""
    identity = np.eye(weights[0].shape[-1])
    product = identity[None]
    for weight in weights:
        layer = float64(weight).mean(axis=1) + identity
        product = layer / layer.sum(axis=-1, keepdims=True) @ product
    shares = product.mean(axis=1) if rows == "all" else product[:, class_index]
    return shares[:, num_prefix:].reshape(-1, *grid), shares


def softmax64(scores, axis):
    exponentials = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def part_attention_twin(queries, keys, scale):
    """TransFG: the product of all layers' matrices, head by head; its row of the class token (B, H, N)."""
    product = None
    for query, key in zip(queries, keys, strict=True):
        scores = scale * np.einsum("bhid,bhjd->bhij", float64(query), float64(key))
        weights = softmax64(scores, -1)
        product = weights if product is None else weights @ product
    return product[:, :, 0]


def mutual_attention_twin(query, key, scale):
    """FFVT: all scores normalised by rows and by columns; the class token's row times its column."""
    scores = scale * np.einsum("bhid,bhjd->bhij", float64(query), float64(key))
    return (softmax64(scores, -1)[:, :, 0] * softmax64(scores, -2)[..., 0]).mean(axis=1)


def similar_box_twin(pooled, locations, grid, patch, count):
    """GLSim: the box around the `count` locations (n, D) that are most like `pooled` (D,)."""
    pooled, locations = float64(pooled), float64(locations)
    cosines = [one @ pooled / np.linalg.norm(one) / np.linalg.norm(pooled) for one in locations]
    places = [divmod(index, grid[1]) for index in np.argsort(cosines)[::-1][:count]]
    rows, columns = zip(*places, strict=True)
    x0, y0, x1, y1 = min(columns), min(rows), max(columns) + 1, max(rows) + 1
    return x0 * patch, y0 * patch, x1 * patch, y1 * patch


def components_twin(mask):
    """Labels of 8-connected components of one mask: the raster index of the first patch, -1 outside."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    result = np.full(mask.shape, -1)
    for component in range(1, count + 1):
        inside = labels == component
        result[inside] = np.flatnonzero(inside)[0]
    return result


def largest_twin(mask, weights=None):
    """The component of one mask with most patches, or weight; ties to the first in raster order."""
    labels = components_twin(mask)
    best, best_size = np.zeros_like(mask), 0
    for first in sorted(set(labels[mask].tolist())):
        size = (labels == first).sum() if weights is None else float64(weights)[labels == first].sum()
        if size > best_size:
            best, best_size = labels == first, size
    return best


def region_twin(saliency, image_size, threshold, patch_size=None, patch_stride=None, component="count"):
    """`(x0, y0, x1, y1)` and whether anything stood out, of one saliency map."""
    saliency = float64(saliency)
    (height, width), (rows, columns) = image_size, saliency.shape
    if not np.isfinite(saliency).all() or not (saliency > threshold * saliency.mean()).any():
        return (0, 0, width, height), False
    weights = saliency if component == "saliency" else None
    ys, xs = np.nonzero(largest_twin(saliency > threshold * saliency.mean(), weights))
    patch = patch_size or (height / rows, width / columns)
    stride = patch_stride or patch
    top, left = ys.min() * stride[0], xs.min() * stride[1]
    return (left, top, xs.max() * stride[1] + patch[1], ys.max() * stride[0] + patch[0]), True


def soft_region_twin(saliency, image_size, threshold, patch_size=None, patch_stride=None):
    """As `region_twin`, by moments of a density that is constant in each patch, integrated pixel by pixel.

    Sizes and strides of patches are whole numbers of pixels.
    """
    saliency = float64(saliency)
    (height, width), (rows, columns) = image_size, saliency.shape
    above = np.maximum(saliency - threshold * saliency.mean(), 0)
    if not np.isfinite(saliency).all() or not above.any():
        return (0, 0, width, height), False
    patch = patch_size or (height // rows, width // columns)
    stride = patch_stride or patch
    density = np.zeros(image_size)
    for row, column in np.ndindex(rows, columns):
        top, left = row * stride[0], column * stride[1]
        density[top : top + patch[0], left : left + patch[1]] += above[row, column]
    edges = []
    for axis, side in ((0, width), (1, height)):
        share = density.sum(axis=axis) / density.sum()
        pixel = np.arange(side)
        mean = (share * (pixel + 0.5)).sum()
        second = (share * ((pixel + 1.0) ** 3 - pixel**3) / 3).sum()  # of x squared within each pixel
        reach = np.sqrt(3 * (second - mean**2))
        edges.append((max(mean - reach, 0), min(mean + reach, side)))
    (x0, x1), (y0, y1) = edges
    return (x0, y0, x1, y1), True


def grown_twin(box, min_side, max_aspect, width_by_height):
    """One box in shares: each side in turn grows around its centre, then slides back inside [0, 1]."""

    def grow(start, stop, side):
        side = min(max(side, stop - start), 1)
        start = (start + stop - side) / 2
        start -= min(start, 0) + max(start + side - 1, 0)
        return start, start + side

    x0, y0, x1, y1 = float64(box)
    (x0, x1), (y0, y1) = grow(x0, x1, min_side), grow(y0, y1, min_side)
    if max_aspect is not None:
        width, height = (x1 - x0) * width_by_height, y1 - y0
        x0, x1 = grow(x0, x1, height / max_aspect / width_by_height)
        y0, y1 = grow(y0, y1, width / max_aspect)
    return x0, y0, x1, y1


def triangle_weights(start, stop, count):
    """(count, n) weights of the n pixels from floor(start) to ceil(stop): triangles two samples wide."""
    left, step = np.floor(start), (stop - start) / count
    centres = start + (np.arange(count) + 0.5) * step
    pixels = np.arange(left, np.ceil(stop)) + 0.5
    weights = np.maximum(1 - np.abs(centres[:, None] - pixels) / max(step, 1), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def zoom_each_twin(image, box, size):
    """Bilinear resize, with antialiasing, of one box (in pixels) of one image (C, H, W)."""
    x0, y0, x1, y1 = box
    cut = float64(image)[:, int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))]
    return triangle_weights(y0, y1, size[0]) @ cut @ triangle_weights(x0, x1, size[1]).T


def zoom_twin(image, box, size):
    """Bilinear crop of one image (C, H, W): pixel centres at k + 0.5, samples half a pixel inside the box."""
    x0, y0, x1, y1 = float64(box)
    x = np.clip(x0 + (np.arange(size[1]) + 0.5) / size[1] * (x1 - x0), x0 + 0.5, x1 - 0.5)
    y = np.clip(y0 + (np.arange(size[0]) + 0.5) / size[0] * (y1 - y0), y0 + 0.5, y1 - 0.5)
    channels = []
    for channel in float64(image):
        across = np.stack([np.interp(x, np.arange(len(row)) + 0.5, row) for row in channel])
        channels.append(np.stack([np.interp(y, np.arange(len(col)) + 0.5, col) for col in across.T], axis=1))
    return np.stack(channels)
