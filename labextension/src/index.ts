/** The plugin: puts the workbench into JupyterLab, and in Notebook 7 as much of it as there is room for. */
import { ILabShell, ILayoutRestorer } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, Notification } from '@jupyterlab/apputils';
import { IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { OutputArea } from '@jupyterlab/outputarea';
import type { CodeCell } from '@jupyterlab/cells';
import type { Widget } from '@lumino/widgets';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { mark } from './cells.js';
import { HistoryView } from './history.js';
import { mockIcon, remoteIcon, syftIcon } from './icons.js';
import { InboxView } from './inbox.js';
import { SidePanel } from './panel.js';
import type { IHooks } from './panel.js';
import type { Line } from './protocol.js';
import { onMock, ownerOf, toPlain, toRemote } from './remote.js';
import { StatusItem } from './status.js';
import { waiting, Workbench } from './state.js';
import type { INews } from './state.js';

const ID = 'syft-lab:plugin';
const CATEGORY = 'Syft Lab';
const KERNEL = 'syft-lab-owner';
const HOST = [
  '%load_ext syft_lab\n%owner start my-hospital',
  'import pandas as pd\nimport syft_lab as lab\n\npatients = pd.read_csv("patients.csv")  # your own table\nowner.publish(patients, name="patients", privacy_unit="row",\n' +
    '              bounds={"age": (0, 110)}, categories={"ward": ["er", "icu", "ward"]}, budget=lab.Budget(3.0))',
  'owner.invite("alice", budgets={"patients": 1.0})  # hand alice.syft over as you would a key',
  'owner.inbox'
];
const CONNECT = ['%load_ext syft_lab\n%connect alice.syft', '%budget'];

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Owners, datasets, budgets, requests and pointers of the notebook in front.',
  autoStart: true,
  requires: [INotebookTracker, IEditorLanguageRegistry],
  optional: [ICommandPalette, ILauncher, ISettingRegistry, IStatusBar, ILayoutRestorer, ILabShell],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    languages: IEditorLanguageRegistry,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    registry: ISettingRegistry | null,
    bar: IStatusBar | null,
    restorer: ILayoutRestorer | null,
    shell: ILabShell | null
  ) => {
    const bench = new Workbench();
    const settings = { toasts: true, strips: true };
    const kernel = (panel: NotebookPanel | null) => panel?.sessionContext.session?.kernel ?? null;
    const { commands } = app;

    // Which kernel is in front
    const follow = () => bench.follow(kernel(tracker.currentWidget));
    tracker.currentChanged.connect(follow);
    tracker.activeCellChanged.connect(() => bench.touch());
    tracker.widgetAdded.connect((_, panel) => {
      mark(panel, bench, () => settings.strips);
      const changed = () => {
        const found = kernel(panel);
        if (found) bench.line(found);
        if (panel === tracker.currentWidget) follow();
      };
      panel.sessionContext.kernelChanged.connect(changed);
      changed();
    });

    // Views
    const inboxes = new Map<Line, MainAreaWidget<InboxView>>();
    const histories = new Map<Line, MainAreaWidget<HistoryView>>();
    const open = <T extends Widget>(known: Map<Line, MainAreaWidget<T>>, line: Line, make: () => T, what: string) => {
      const there = known.get(line);
      if (there) {
        app.shell.activateById(there.id);
        return there.content;
      }
      const content = make();
      const made = new MainAreaWidget<T>({ content } as MainAreaWidget.IOptions<T>);
      made.id = `syft-lab-${what}-${line.kernel.id}`;
      made.title.label = `${what}: ${line.views.get('owner')?.name ?? 'owner'}`;
      made.title.icon = syftIcon;
      made.title.closable = true;
      known.set(line, made);
      made.disposed.connect(() => known.delete(line));
      app.shell.add(made, 'main');
      app.shell.activateById(made.id);
      return content;
    };
    const hosting = () => {
      const current = bench.current;
      if (current?.views.get('owner')) return current;
      return bench.lines.find(line => line.views.get('owner')) ?? null;
    };
    const openInbox = (id?: string) => {
      const line = hosting();
      if (!line) return void Notification.info('No owner is hosted in an open notebook. Run %owner start NAME first.', { autoClose: 5000 });
      const view = open(inboxes, line, () => new InboxView(bench, line, languages), 'Inbox');
      if (id) view.choose(id);
      view.activate();
    };
    const openHistory = () => {
      const line = hosting();
      if (line) open(histories, line, () => new HistoryView(bench, line), 'Spent');
    };

    // The notebook in front
    const insert = (code: string) => {
      const panel = tracker.currentWidget;
      if (!panel) return;
      const active = panel.content.activeCell;
      const empty = active?.model.type === 'code' && !active.model.sharedModel.getSource().trim();
      if (!empty) NotebookActions.insertBelow(panel.content);
      panel.content.activeCell?.model.sharedModel.setSource(code);
      panel.content.mode = 'edit';
      app.shell.activateById(panel.id);
    };
    const run = async (code: string) => {
      const found = kernel(tracker.currentWidget);
      if (!found) throw new Error('there is no kernel');
      const reply: any = await found.requestExecute({ code, store_history: false }).done;
      if (reply.content.status === 'error') throw new Error(`${reply.content.ename}: ${reply.content.evalue}`);
    };
    const hooks: IHooks = { insert, run, openInbox, openHistory };

    const panel = new SidePanel(bench, hooks);
    panel.title.icon = syftIcon;
    app.shell.add(panel, 'left', { rank: 650, type: 'Syft Lab' });
    restorer?.add(panel, panel.id);

    // Commands
    const active = () => (tracker.activeCell?.model.type === 'code' ? (tracker.activeCell as CodeCell) : null);
    const source = () => active()?.model.sharedModel.getSource() ?? '';
    const notebook = async (cells: string[]) => {
      const made: NotebookPanel = await commands.execute('notebook:create-new', { kernelName: KERNEL });
      await made.context.ready;
      const model = made.content.model!.sharedModel;
      model.transact(() => {
        model.deleteCellRange(0, model.cells.length);
        cells.forEach(text => model.addCell({ cell_type: 'code', source: text, metadata: {} }));
      });
      made.content.activeCellIndex = 0;
    };
    commands.addCommand('syft-lab:show', {
      label: 'Show the Syft Lab Panel', icon: syftIcon,
      execute: () => app.shell.activateById(panel.id)
    });
    commands.addCommand('syft-lab:inbox', {
      label: 'Open the Inbox of Requests', icon: syftIcon,
      execute: args => openInbox(typeof args['id'] === 'string' ? args['id'] : undefined)
    });
    commands.addCommand('syft-lab:history', { label: 'Show What Was Spent When', icon: syftIcon, execute: openHistory });
    commands.addCommand('syft-lab:host', {
      label: args => (args['launcher'] ? 'Host data' : 'Host Data in a New Notebook'),
      caption: 'A notebook that publishes a table, invites an analyst, and shows the inbox',
      icon: syftIcon, execute: () => notebook(HOST)
    });
    commands.addCommand('syft-lab:connect', {
      label: args => (args['launcher'] ? 'Connect to an owner' : 'Connect to an Owner in a New Notebook'),
      caption: 'A notebook that connects with an invitation file',
      icon: remoteIcon, execute: () => notebook(CONNECT)
    });
    commands.addCommand('syft-lab:convert', {
      label: 'Turn the Cell into a %%remote Cell, or Back',
      caption: 'Have this cell run at an owner, once the owner agrees; or here again',
      icon: remoteIcon,
      isEnabled: () => active() !== null,
      execute: () => {
        const text = source();
        active()?.model.sharedModel.setSource(ownerOf(text) === null ? toRemote(text, bench.analyst?.sessions ?? []) : toPlain(text));
      }
    });
    commands.addCommand('syft-lab:dry-run', {
      label: 'Run the %%remote Cell on the Mock',
      caption: 'Run this %%remote cell here, on made-up data; nothing is asked of the owner',
      icon: mockIcon,
      isEnabled: () => active() !== null && ownerOf(source()) !== null,
      execute: async () => {
        const cell = active();
        const context = tracker.currentWidget?.sessionContext;
        if (cell && context) await OutputArea.execute(onMock(source()), cell.outputArea, context);
      }
    });
    for (const name of ['show', 'inbox', 'history', 'host', 'connect', 'convert', 'dry-run']) {
      palette?.addItem({ command: `syft-lab:${name}`, category: CATEGORY });
    }
    launcher?.add({ command: 'syft-lab:host', category: CATEGORY, rank: 1, args: { launcher: true } });
    launcher?.add({ command: 'syft-lab:connect', category: CATEGORY, rank: 2, args: { launcher: true } });
    bench.changed.connect(() => commands.notifyCommandChanged('syft-lab:dry-run'));

    bar?.registerStatusItem('syft-lab:status', {
      item: new StatusItem(bench, source, () => (bench.owner?.waiting ? openInbox() : app.shell.activateById(panel.id))),
      align: 'left', rank: 20
    });

    // Notebook 7 has no room for notes: there the widgets in cells tell.
    const lab = shell !== null;
    (document as any).syftWorkbench = lab;
    const asking = new Map<string, string>(); // notes about what waits, by what they tell of
    bench.news.connect((_, news) => {
      if (!lab || !settings.toasts) return;
      const note = tell(news, () => (news.kind === 'ask' ? openInbox(news.key.split(' ')[0]) : app.shell.activateById(panel.id)));
      if (note && news.kind === 'ask') asking.set(news.key, note);
    });
    bench.changed.connect(() => {
      for (const [key, note] of asking) {
        if (bench.lines.some(line => waiting(line.views.get('owner')).has(key))) continue;
        asking.delete(key);
        Notification.dismiss(note); // it was decided, or taken back
      }
    });

    registry?.load(ID).then(found => {
      const read = () => {
        settings.toasts = found.get('toasts').composite !== false;
        settings.strips = found.get('strips').composite !== false;
        bench.touch();
      };
      found.changed.connect(read);
      read();
    }, error => console.warn('syft-lab: settings could not be read', error));
  }
};

/** Tell of news once a page: a widget in a cell may have told of the same. Gives the note's name. */
function tell(news: INews, open: () => void): string | null {
  const told: Set<string> = ((document as any).syftTold ??= new Set());
  if (told.has(news.key)) return null;
  told.add(news.key);
  const type = news.kind === 'good' ? 'success' : news.kind === 'bad' ? 'warning' : 'info';
  return Notification.emit(news.text, type, { autoClose: 10_000, actions: [{ label: 'Show', callback: open }] });
}

export default plugin;
