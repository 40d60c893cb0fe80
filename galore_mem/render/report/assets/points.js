// Which points of a timeline are drawn: all of a short stretch; of a long one the highest of each bucket, so that the
// picture is the run's upper edge, with a line along its lower edge.
const MOST_DRAWN = 2000;

const pointsBetween = (line, from, to) => {
  const first = Math.max(0, lastAtMost(line.event, from));
  const last = Math.min(line.event.length - 1, lastAtMost(line.event, to) + 1);
  const count = last - first + 1;
  if (count <= MOST_DRAWN) return Array.from({ length: Math.max(0, count) }, (_, i) => first + i);
  const width = Math.ceil((count * 2.5) / MOST_DRAWN);
  const kept = [];
  const lowest = [];
  for (let start = first; start <= last; start += width) {
    const stop = Math.min(start + width, last + 1);
    let [high, low] = [start, start];
    for (let i = start; i < stop; i++) {
      if (line.allocated[i] > line.allocated[high]) high = i;
      if (line.live[i] < line.live[low]) low = i;
    }
    kept.push(high);
    lowest.push(low);
  }
  if (kept.at(-1) !== last) { kept.push(last); lowest.push(last); }
  kept.lowest = lowest;
  return kept;
};
