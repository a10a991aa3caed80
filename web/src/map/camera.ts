// Where we look. Screen = (world − centre) × scale + half the screen.

export interface Camera {
  x: number;
  y: number;
  scale: number;
}

export interface Size {
  width: number;
  height: number;
}

export const SCALE_MIN = 0.02;
export const SCALE_MAX = 6;

/** From here on calls are labelled, and from there on instances are shown. */
export const SCALE_EDGES = 0.95;
export const SCALE_INSTANCES = 1.7;

/** So much smaller than a picture that fills the screen, and the next larger scale is shown; so much larger, the next finer. */
export const COARSER = 0.55;
export const FINER = 1.9;

const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

/** What stands over the picture at its borders, in pixels. */
export interface Inset {
  top: number;
  right: number;
  bottom: number;
}

/** Everything in sight, in the middle of what nothing stands over. */
export function fit(bounds: { left: number; top: number; right: number; bottom: number }, size: Size, inset: Inset = { top: 0, right: 0, bottom: 0 }): Camera {
  const margin = Math.min(48, size.width * 0.03);
  const width = Math.max(1, bounds.right - bounds.left);
  const height = Math.max(1, bounds.bottom - bounds.top);
  const [free, tall] = [size.width - inset.right - 2 * margin, size.height - inset.top - inset.bottom - 2 * margin];
  const scale = clamp(Math.min(Math.max(1, free) / width, Math.max(1, tall) / height, 1.6), SCALE_MIN, SCALE_MAX);
  return {
    x: (bounds.left + bounds.right) / 2 + inset.right / 2 / scale,
    y: (bounds.top + bounds.bottom) / 2 + (inset.bottom - inset.top) / 2 / scale,
    scale,
  };
}

/** Where we look, for an address: three short numbers. */
export const printCamera = ({ x, y, scale }: Camera): string => `${Math.round(x)},${Math.round(y)},${Number(scale.toPrecision(3))}`;

/** `null`: no camera that anybody could look through. */
export function parseCamera(text: string): Camera | null {
  const [x, y, scale, ...more] = text.split(",").map(Number);
  if (x === undefined || y === undefined || scale === undefined || more.length > 0) return null;
  if (![x, y, scale].every(Number.isFinite) || Math.abs(x) > 1e6 || Math.abs(y) > 1e6 || scale <= 0) return null;
  return { x, y, scale: clamp(scale, SCALE_MIN, SCALE_MAX) };
}

export const toScreen = (camera: Camera, size: Size, x: number, y: number): [number, number] => [
  (x - camera.x) * camera.scale + size.width / 2,
  (y - camera.y) * camera.scale + size.height / 2,
];

export const toWorld = (camera: Camera, size: Size, x: number, y: number): [number, number] => [
  (x - size.width / 2) / camera.scale + camera.x,
  (y - size.height / 2) / camera.scale + camera.y,
];

/** Zooms by `factor` and keeps the world point under (x, y) where it is. */
export function zoomAt(camera: Camera, size: Size, x: number, y: number, factor: number): Camera {
  const [wx, wy] = toWorld(camera, size, x, y);
  const scale = clamp(camera.scale * factor, SCALE_MIN, SCALE_MAX);
  return { scale, x: wx - (x - size.width / 2) / scale, y: wy - (y - size.height / 2) / scale };
}

export const pan = (camera: Camera, dx: number, dy: number): Camera => ({
  ...camera,
  x: camera.x - dx / camera.scale,
  y: camera.y - dy / camera.scale,
});
