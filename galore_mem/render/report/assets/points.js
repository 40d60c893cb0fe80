// Which points of a timeline are drawn: all of a short stretch, of a long one each bucket's highest and lowest.
const MOST_DRAWN = 2400;

const pointsBetween = (line, from, to) => {
  const first = Math.max(0, lastAtMost(line.event, from));
  const last = Math.min(line.event.length - 1, lastAtMost(line.event, to) + 1);
  const count = last - first + 1;
  if (count <= MOST_DRAWN) return Array.from({ length: Math.max(0, count) }, (_, i) => first + i);
  const width = Math.ceil((count * 4) / MOST_DRAWN);
  const kept = new Set([first, last]);
  for (let start = first; start <= last; start += width) {
    const stop = Math.min(start + width, last + 1);
    let [high, low, top] = [start, start, start];
    for (let i = start; i < stop; i++) {
      if (line.allocated[i] > line.allocated[high]) high = i;
      if (line.allocated[i] < line.allocated[low]) low = i;
      if (line.reserved[i] > line.reserved[top]) top = i;
    }
    [high, low, top, stop - 1].forEach((i) => kept.add(i));
  }
  return [...kept].sort((a, b) => a - b);
};
