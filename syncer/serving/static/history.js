// Keeps the samples that the daemon has sent. They outlive a restart of the daemon, which starts with none.

export class History {
  at = [];
  models = {};
  slot = [];

  /** The time of the last sample, in seconds since the Unix epoch; 0 if there is none. */
  get last() {
    return this.at.length ? this.at[this.at.length - 1] : 0;
  }

  /** Adds the samples of one answer. A pause becomes a gap, so that no line is drawn across it. */
  add({ every, kept, at, models, slot }, now) {
    if (this.last > now + every) this.clear(); // the clock of the daemon was set back
    const fresh = at.filter((one) => one > this.last).length;
    const skip = at.length - fresh;
    if (fresh && this.last && at[skip] - this.last > 3 * every) this.#append([this.last + every], {}, []);
    if (fresh) {
      const cut = (columns) => Object.fromEntries(Object.entries(columns).map(([kind, list]) => [kind, list.slice(skip)]));
      const named = Object.fromEntries(Object.entries(models).map(([name, columns]) => [name, cut(columns)]));
      this.#append(at.slice(skip), named, slot.slice(skip));
    }
    const old = this.at.findIndex((one) => one >= now - kept);
    if (old) this.#drop(old < 0 ? this.at.length : old);
  }

  /** Returns the columns of a chart: the times, then one list for each kind of value. */
  columns(name, kinds) {
    const found = this.models[name] ?? {};
    return [this.at, ...kinds.map((kind) => found[kind] ?? this.at.map(() => null))];
  }

  clear() {
    this.at = [];
    this.models = {};
    this.slot = [];
  }

  #append(at, models, slot) {
    const before = this.at.length;
    this.at = this.at.concat(at);
    this.slot = this.slot.concat(at.map((_, index) => slot[index] ?? null));
    for (const [name, columns] of Object.entries(models)) {
      const known = (this.models[name] ??= {});
      for (const kind of Object.keys(columns)) known[kind] ??= Array(before).fill(null);
    }
    for (const [name, known] of Object.entries(this.models)) {
      for (const kind of Object.keys(known)) {
        known[kind] = known[kind].concat(at.map((_, index) => models[name]?.[kind]?.[index] ?? null));
      }
    }
  }

  #drop(count) {
    this.at = this.at.slice(count);
    this.slot = this.slot.slice(count);
    for (const known of Object.values(this.models)) {
      for (const kind of Object.keys(known)) known[kind] = known[kind].slice(count);
    }
  }
}
