// Prometheus' text format, as far as a page needs it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)/;

/** Samples as [{ name, labels: text, value }]. */
export function samples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const sample = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (sample) found.push({ name: sample[1], labels: sample[2] ?? "", value: Number(sample[3]) });
  }
  return found;
}

/** A function from name to the sum of its samples; undefined where there are none. `model`: of that model only. */
export function totals(found, model) {
  const sums = new Map();
  const other = (labels) => labels.includes('model_name="') && !labels.includes(`model_name="${model}"`);
  for (const { name, labels, value } of found) {
    if (!model || !other(labels)) sums.set(name, (sums.get(name) ?? 0) + value);
  }
  return (name) => sums.get(name);
}
