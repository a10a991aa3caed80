// Numbers for people: three significant digits and a unit, the same everywhere.

export function number(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  if (size >= 100) return value.toFixed(0);
  return trim(value);
}

const trim = (value: number): string => {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  const text = value.toFixed(digits);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
};

export const rate = (perSecond: number): string => (Number.isFinite(perSecond) ? `${number(perSecond)}/s` : "–");

export function share(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const percent = value * 100;
  if (percent === 0) return "0%";
  if (percent < 0.01) return "<0.01%";
  return `${percent >= 10 ? percent.toFixed(0) : percent.toPrecision(2).replace(/\.?0+$/, "")}%`;
}

export function millis(value: number): string {
  if (!Number.isFinite(value) || value <= 0) return "–";
  if (value < 1) return `${number(value * 1000)}µs`;
  if (value < 1_000) return `${number(value)}ms`;
  return `${number(value / 1000)}s`;
}
