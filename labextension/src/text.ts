/** Words and numbers as they are shown. What others wrote is shown as text, with what deceives the eye spelled out. */

const DECEIVING = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/u;

/** Text with control, bidirectional and invisible characters spelled out. */
export function visible(text: unknown): string {
  return Array.from(String(text ?? ''), c =>
    c !== '\n' && c !== '\t' && DECEIVING.test(c) ? `\\u{${c.codePointAt(0)!.toString(16)}}` : c
  ).join('');
}

/** A number with six digits at most. */
export function plain(value: number): string {
  return Number(value.toPrecision(6)).toString();
}

/** A size in bytes, for people. */
export function bytes(size: number): string {
  for (const [unit, name] of [[1 << 30, 'GB'], [1 << 20, 'MB'], [1 << 10, 'kB']] as const) {
    if (size >= unit) return `${plain(Number((size / unit).toPrecision(3)))} ${name}`;
  }
  return `${size} B`;
}

/** How long ago, from seconds since 1970. */
export function ago(then: number, now: number = Date.now() / 1000): string {
  const seconds = Math.max(0, now - then);
  for (const [unit, name] of [[86400, 'd'], [3600, 'h'], [60, 'min']] as const) {
    if (seconds >= unit) return `${Math.floor(seconds / unit)} ${name} ago`;
  }
  return seconds < 30 ? 'now' : `${Math.floor(seconds)} s ago`;
}

/** "3 requests", "1 request". */
export function count(n: number, thing: string): string {
  return `${n} ${thing}${n === 1 ? '' : 's'}`;
}

/** The hue of an owner, 0 to 359, from the fingerprint of its key: the same on every machine. */
export function hue(fingerprint: string): number {
  let sum = 0;
  for (const c of fingerprint) sum = (sum * 31 + c.codePointAt(0)!) % 65521;
  return sum % 360;
}

/** A name that Python takes as a variable. */
export function variable(name: string): string {
  const made = name.replace(/[^\p{L}\p{N}_]/gu, '_');
  return /^\p{N}/u.test(made) ? `_${made}` : made || '_';
}

/** Whether something that is in both lists has another place in the second. */
export function moved(was: readonly string[], now: readonly string[]): boolean {
  return now.some((id, i) => was[i] !== id && was.includes(id));
}
