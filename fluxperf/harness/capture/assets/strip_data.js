// Reads a strip's data, written by strip_data.py: rows of items in typed arrays, searched by bisection.

class StripRow {
  constructor(raw, group, first) {
    const size = raw.start.length;
    const column = (values) => (typeof values === "number" ? new Array(size).fill(values) : values);
    const numbers = (values) => {
      let number = -1;
      return Int32Array.from(column(values), (step) => (number += step));
    };
    let now = 0;
    this.of = raw.of;
    this.label = raw.label;
    this.group = group;
    this.first = first;
    this.size = size;
    this.start = Float64Array.from(raw.start, (step) => (now += step));
    this.end = Float64Array.from(column(raw.length), (length, at) => this.start[at] + length);
    this.thing = Int32Array.from(column(raw.thing));
    this.range = numbers(raw.range);
    this.call = numbers(raw.call);
    this.bytes = new Map(raw.bytes);
    this.merged = new Map(raw.merged);
  }

  // The first item that ends after a time. All items before it end before that time.
  endingAfter(time) {
    return StripRow.bisect(this.end, time);
  }

  // The first item that begins after a time.
  startingAfter(time) {
    return StripRow.bisect(this.start, time);
  }

  static bisect(values, time) {
    let low = 0;
    let high = values.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] > time) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // The item at a time, or the nearest one within a distance; -1 if there is none.
  near(time, distance) {
    let best = -1;
    let least = distance;
    for (let at = Math.max(0, this.endingAfter(time - distance) - 1); at < this.size; at++) {
      if (this.start[at] > time + distance) break;
      const away = Math.max(this.start[at] - time, time - this.end[at], 0);
      if (away <= least) {
        if (away === 0 && best >= 0 && least === 0) break;
        best = at;
        least = away;
      }
    }
    return best;
  }
}

class StripData {
  constructor(raw) {
    this.kinds = raw.kinds;
    this.words = raw.words;
    this.texts = raw.texts;
    [this.kindOf, this.nameOf, this.fullNameOf, this.detailOf] = raw.things.length ? raw.things : [[], [], [], []];
    this.groups = raw.groups.map((group) => group.label);
    this.rows = [];
    this.size = 0;
    raw.groups.forEach((group, place) => {
      for (const row of group.rows) {
        this.rows.push(new StripRow(row, place, this.size));
        this.size += row.start.length;
      }
    });
    this.windows = raw.windows.map(([name, start, end, range, gpu]) => ({ name, start, end, range, gpu }));
    this.firstWindow = raw.first;
    [this.low, this.high] = raw.span;
    if (!(this.high > this.low)) this.high = this.low + 1;
    this.owners();
  }

  // The window in which each item was launched, and the items that each call launched. Enclosing items come first.
  owners() {
    const windowOf = new Map(this.windows.map((window, place) => [window.range, place]));
    windowOf.delete(-1);
    this.owner = new Int32Array(this.size).fill(-1);
    this.launched = new Map();
    for (const row of this.rows) {
      for (let at = 0; at < row.size; at++) {
        const number = row.first + at;
        const around = row.range[at];
        const own = row.of === "ranges" ? windowOf.get(number) : undefined;
        this.owner[number] = own ?? (around < 0 ? -1 : this.owner[around]);
        if (row.of === "stream" && row.call[at] >= 0) {
          if (!this.launched.has(row.call[at])) this.launched.set(row.call[at], []);
          this.launched.get(row.call[at]).push(number);
        }
      }
    }
  }

  // The row of an item, and its position there.
  place(number) {
    let low = 0;
    let high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle].first <= number) low = middle;
      else high = middle - 1;
    }
    return [low, number - this.rows[low].first];
  }

  text(place) {
    return place < 0 ? "" : this.texts[place];
  }

  // All properties of an item.
  item(number) {
    const [rowPlace, at] = this.place(number);
    const row = this.rows[rowPlace];
    const thing = row.thing[at];
    return {
      number,
      at,
      rowPlace,
      row,
      kind: this.kinds[this.kindOf[thing]],
      words: this.words[this.kindOf[thing]],
      name: this.text(this.nameOf[thing]),
      fullName: this.text(this.fullNameOf[thing]),
      detail: this.text(this.detailOf[thing]),
      start: row.start[at],
      end: row.end[at],
      bytes: row.bytes.get(at) || 0,
      merged: row.merged.get(at) || 1,
      range: row.range[at],
      call: row.call[at],
    };
  }

  // Names from the outermost range to this one.
  path(number) {
    const names = [];
    for (let around = number; around >= 0 && names.length < 40; ) {
      const [rowPlace, at] = this.place(around);
      names.unshift(this.text(this.nameOf[this.rows[rowPlace].thing[at]]));
      around = this.rows[rowPlace].range[at];
    }
    return names.join(" / ");
  }

  // Names that contain this text, and the numbers of their items in the order of time.
  find(text) {
    const wanted = text.toLowerCase();
    const texts = this.texts.map((one) => one.toLowerCase().includes(wanted));
    const things = this.nameOf.map((name, thing) => texts[name] || (this.fullNameOf[thing] >= 0 && texts[this.fullNameOf[thing]]));
    const found = [];
    let time = 0;
    for (const row of this.rows) {
      for (let at = 0; at < row.size; at++) {
        if (!things[row.thing[at]]) continue;
        found.push([row.start[at], row.first + at]);
        if (row.of === "stream") time += row.end[at] - row.start[at];
      }
    }
    found.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return { things, numbers: found.map((pair) => pair[1]), time };
  }
}
