/** Code as Lab's own editor shows it, read only, with what changed since an earlier version marked. */
import { unifiedMergeView } from '@codemirror/merge';
import { EditorState } from '@codemirror/state';
import type { Extension } from '@codemirror/state';
import { Decoration, EditorView, MatchDecorator, ViewPlugin, highlightSpecialChars, lineNumbers } from '@codemirror/view';
import type { DecorationSet, ViewUpdate } from '@codemirror/view';
import { jupyterTheme } from '@jupyterlab/codemirror';
import type { IEditorLanguageRegistry } from '@jupyterlab/codemirror';

// A letter that is not ASCII may only look like the one it stands for.
const odd = new MatchDecorator({
  regexp: /[^\x00-\x7f]+/gu,
  decoration: match =>
    Decoration.mark({
      class: 'syft-Odd',
      attributes: { title: 'not ASCII: ' + Array.from(match[0], c => 'U+' + c.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')).join(' ') }
    })
});

const marked = ViewPlugin.fromClass(
  class {
    decorations: DecorationSet;
    constructor(view: EditorView) {
      this.decorations = odd.createDeco(view);
    }
    update(update: ViewUpdate) {
      this.decorations = odd.updateDeco(update, this.decorations);
    }
  },
  { decorations: v => v.decorations }
);

/** The Python of Lab's editor, once it is loaded. */
export async function python(languages: IEditorLanguageRegistry): Promise<Extension> {
  const found = await languages.getLanguage('text/x-python').catch(() => null);
  return found?.support ?? [];
}

/** An editor in `place`; `before` is the earlier version, or null. */
export function show(place: HTMLElement, code: string, before: string | null, language: Extension, label: string): EditorView {
  return new EditorView({
    parent: place,
    state: EditorState.create({
      doc: code,
      extensions: [
        lineNumbers(),
        highlightSpecialChars(),
        EditorState.readOnly.of(true),
        EditorView.editable.of(false),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ 'aria-label': label, tabindex: '0' }),
        language,
        jupyterTheme,
        marked,
        before === null ? [] : unifiedMergeView({ original: before, mergeControls: false, gutter: true, collapseUnchanged: { margin: 3, minSize: 8 } })
      ]
    })
  });
}
