// Texts about a strip's items: for the tip at the pointer, the box below, and screen readers.

const StripWords = {
  units: [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]],

  digits(value) {
    const places = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  },

  time(value) {
    const size = Math.abs(value);
    const [factor, unit] = StripWords.units.find(([least]) => size >= least) || [1, "ns"];
    const text = unit === "ns" ? String(Math.round(size)) : StripWords.digits(size / factor);
    return (value < 0 ? "−" : "") + text + " " + unit;
  },

  quantity(value, unit) {
    const prefixes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
    const [factor, prefix] = prefixes.find(([least]) => value >= least) || [1, ""];
    return (factor === 1 ? value.toLocaleString("en") : StripWords.digits(value / factor)) + " " + prefix + unit;
  },

  // Rows of overlapping or nested items follow the row with the name.
  where(data, item) {
    let place = item.rowPlace;
    while (place > 0 && ["", "overlapping"].includes(data.rows[place].label)) place--;
    const further = place === item.rowPlace ? "" : ", further row";
    return `${data.groups[item.row.group]}, ${data.rows[place].label}${further}`;
  },

  // Pairs of a term and its value.
  facts(data, item) {
    const facts = [["Kind", item.words]];
    if (item.merged > 1) facts.push(["Represents", `${item.merged.toLocaleString("en")} items that follow each other`]);
    if (item.fullName) facts.push(["Full name", item.fullName]);
    facts.push(["Start", StripWords.time(item.start)]);
    facts.push(["Duration", StripWords.time(item.end - item.start)]);
    if (item.bytes) {
      const rate = item.end > item.start ? `, ${StripWords.quantity(Math.round((item.bytes / (item.end - item.start)) * 1e9), "B/s")}` : "";
      facts.push(["Bytes", StripWords.quantity(item.bytes, "B") + rate]);
    }
    if (item.detail) facts.push([item.row.of === "ranges" ? "Domain" : "Details", item.detail]);
    facts.push(["On", StripWords.where(data, item)]);
    if (item.range >= 0) facts.push([item.row.of === "ranges" ? "Inside" : "Range", data.path(item.range)]);
    if (item.call >= 0) {
      const call = data.item(item.call);
      const late = item.start - call.start;
      facts.push(["Launched by", `${call.name}, called ${StripWords.time(Math.abs(late))} ${late < 0 ? "after" : "before"} this item began`]);
    }
    const launched = item.row.of === "calls" ? data.launched.get(item.number) : undefined;
    if (launched) facts.push(["Launched", launched.length === 1 ? data.item(launched[0]).name : `${launched.length.toLocaleString("en")} pieces of work`]);
    return facts;
  },

  sentence(data, item) {
    const bytes = item.bytes ? `, ${StripWords.quantity(item.bytes, "B")}` : "";
    const range = item.range >= 0 ? `, range ${data.path(item.range)}` : "";
    const length = StripWords.time(item.end - item.start);
    return `${item.name}, ${item.words}, ${length} from ${StripWords.time(item.start)}${bytes}, ${StripWords.where(data, item)}${range}`;
  },

  element(tag, text, kind) {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  },

  list(title, facts) {
    const list = document.createElement("dl");
    for (const [term, text] of facts) {
      const pair = document.createElement("div");
      pair.append(StripWords.element("dt", term), StripWords.element("dd", text));
      list.append(pair);
    }
    return [StripWords.element("p", title, "strip-name"), list];
  },

  tip(data, item) {
    const bytes = item.bytes ? ` · ${StripWords.quantity(item.bytes, "B")}` : "";
    const many = item.merged > 1 ? ` · ${item.merged.toLocaleString("en")} items` : "";
    const parts = [
      StripWords.element("p", item.name, "strip-name"),
      StripWords.element("p", `${StripWords.time(item.end - item.start)} from ${StripWords.time(item.start)}${bytes}${many}`),
      StripWords.element("p", `${item.words} · ${StripWords.where(data, item)}`),
    ];
    if (item.range >= 0) parts.push(StripWords.element("p", data.path(item.range)));
    return parts;
  },
};
