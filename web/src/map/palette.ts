// Colours that differ for every kind of colour vision and in both themes. Colour is never the only sign: shapes, labels
// and widths say the same.

export type Rgb = [number, number, number];

export interface Palette {
  background: Rgb;
  panel: Rgb;
  line: Rgb;
  text: Rgb;
  faint: Rgb;
  ok: Rgb;
  warn: Rgb;
  bad: Rgb;
  idle: Rgb;
  accent: Rgb;
  /** Calls on their way: seen on every line and beside it. */
  dot: Rgb;
}

const hex = (text: string): Rgb => [
  parseInt(text.slice(1, 3), 16) / 255,
  parseInt(text.slice(3, 5), 16) / 255,
  parseInt(text.slice(5, 7), 16) / 255,
];

export const LIGHT: Palette = {
  background: hex("#f7f8fa"),
  panel: hex("#ffffff"),
  line: hex("#c3cad5"),
  text: hex("#1b2330"),
  faint: hex("#556277"),
  ok: hex("#0b7a75"),
  warn: hex("#b86e00"),
  bad: hex("#c2185b"),
  idle: hex("#94a0b3"),
  accent: hex("#2457c5"),
  dot: hex("#06403d"),
};

export const DARK: Palette = {
  background: hex("#10151d"),
  panel: hex("#1a212c"),
  line: hex("#3a4657"),
  text: hex("#e8edf5"),
  faint: hex("#9aa8bd"),
  ok: hex("#3fc1b5"),
  warn: hex("#f0a030"),
  bad: hex("#ff5c93"),
  idle: hex("#66748a"),
  accent: hex("#7aa7ff"),
  dot: hex("#c9fff8"),
};

export const css = ([r, g, b]: Rgb, alpha = 1): string =>
  `rgba(${Math.round(r * 255)}, ${Math.round(g * 255)}, ${Math.round(b * 255)}, ${alpha})`;

/** The health of anything with an error share, in three words; the shares are printed in the legend. */
export type Health = "idle" | "ok" | "warn" | "bad";

export const WARN_ERRORS = 0.005;
export const BAD_ERRORS = 0.05;

export function health(rate: number, errors: number): Health {
  if (!(rate > 0)) return "idle";
  if (errors >= BAD_ERRORS) return "bad";
  return errors >= WARN_ERRORS ? "warn" : "ok";
}
