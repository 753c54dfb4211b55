// Content of a marked interval: its length, busy time of each GPU, work that ran, and waits of the host.

const StripMeasure = {
  // Times of items on rows, cut to the marked interval, in the order of time.
  intervals(rows, { low, high }) {
    const found = [];
    for (const row of rows) {
      const last = row.startingAfter(high);
      for (let at = row.endingAfter(low); at < last; at++) found.push([Math.max(low, row.start[at]), Math.min(high, row.end[at])]);
    }
    return found.sort((a, b) => a[0] - b[0]);
  },

  union(intervals) {
    let total = 0;
    let until = -Infinity;
    for (const [start, end] of intervals) {
      total += Math.max(0, end - Math.max(start, until));
      until = Math.max(until, end);
    }
    return total;
  },

  // Number of items of each kind that begin or run in the marked interval, and their bytes.
  counts(data, rows, { low, high }) {
    const counts = new Map();
    let bytes = 0;
    for (const row of rows) {
      const last = row.startingAfter(high);
      for (let at = row.endingAfter(low); at < last; at++) {
        const kind = data.kinds[data.kindOf[row.thing[at]]];
        counts.set(kind, (counts.get(kind) || 0) + (row.merged.get(at) || 1));
        bytes += row.bytes.get(at) || 0;
      }
    }
    return { counts, bytes };
  },

  // Pairs of a term and its value.
  facts(data, stretch) {
    const long = stretch.high - stretch.low;
    const facts = [["From", StripWords.time(stretch.low)], ["To", StripWords.time(stretch.high)]];
    data.groups.forEach((label, group) => {
      const streams = data.rows.filter((row) => row.group === group && row.of === "stream");
      const waits = data.rows.filter((row) => row.group === group && row.of === "waits");
      const rows = streams.length ? streams : waits;
      const { counts, bytes } = StripMeasure.counts(data, rows, stretch);
      if (!streams.length && !counts.size) return;
      const share = ((StripMeasure.union(StripMeasure.intervals(rows, stretch)) / long) * 100).toFixed(1);
      const parts = Array.from(counts, ([kind, count]) => `${count.toLocaleString("en")} × ${data.words[data.kinds.indexOf(kind)]}`);
      if (bytes) parts.push(StripWords.quantity(bytes, "B"));
      facts.push([label, [`${streams.length ? "busy" : "waiting"} ${share} %`, ...parts].join("; ")]);
    });
    return facts;
  },
};
