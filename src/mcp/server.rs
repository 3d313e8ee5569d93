//! The tools, resources and prompts of the server, as rmcp handlers.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest,
    CustomResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, Implementation, JsonObject,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProgressToken, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{Peer, RequestContext, RoleServer};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::blocking::on_own_thread;
use super::lines::UNREADABLE;
use super::{prompts, resources, schemas, words};
use crate::consult::result::{max_result_chars, shorten_error};
use crate::consult::{self, ConsultResult, Request, schema};
use crate::error::{Error, Kind};
use crate::kimi::status;
use crate::kimi::{Progress, Watch};
use crate::settings::{Config, Mode};

/// The shortest time between two progress messages, since a busy Kimi calls many tools per second.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);
/// The host that shows the time of a call beside its progress.
const CLOCK: &str = "claude-code";

type HostRequest = RequestContext<RoleServer>;
type Page = Option<PaginatedRequestParams>;

#[derive(Clone)]
pub(super) struct Server {
    config: Arc<Config>,
    closing: CancellationToken,
    slots: Arc<Semaphore>,
    /// A permit for each call, as every call holds a thread.
    calls: Arc<Semaphore>,
}

/// The most calls at the same time, including those that wait in the queue.
const MOST_CALLS: usize = 64;

impl Server {
    pub(super) fn new(config: Config, closing: CancellationToken) -> Server {
        let slots = Arc::new(Semaphore::new(config.settings.max_parallel));
        let calls = Arc::new(Semaphore::new(MOST_CALLS));
        Server { config: Arc::new(config), closing, slots, calls }
    }

    /// A watch without progress messages.
    fn watch<'a>(&'a self, cancel: &'a CancellationToken) -> Watch<'a> {
        Watch { progress: &|_| {}, cancel, closing: &self.closing, slots: &self.slots }
    }

    /// Returns whether the server offers more than its status.
    fn is_on(&self) -> bool {
        self.config.mode() != Mode::Disabled
    }

    /// Returns whether the server offers slash commands. A plugin has its own, and hosts would list both.
    fn has_prompts(&self) -> bool {
        self.is_on() && !self.config.environment.is_in_a_plugin()
    }

    /// The refusal of a request for resources or prompts while the server is switched off.
    fn switched_off(&self) -> ErrorData {
        ErrorData::invalid_params(self.config.mode_hint(), None)
    }

    async fn consult(
        &self,
        arguments: JsonObject,
        context: &HostRequest,
    ) -> Result<CallToolResult, Error> {
        let cancel = context.ct.child_token();
        // Ends Kimi when rmcp drops the call.
        let _cancelled = cancel.clone().drop_guard();
        let token = context.meta.get_progress_token();
        let (sender, news) = watch::channel(None);
        let server = self.clone();
        let has_clock = context.client_info().is_some_and(|host| host.name == CLOCK);
        let limit = max_result_chars(&arguments, &self.config.settings);
        let answered = move |result: Result<ConsultResult, Error>| {
            let result = result.map(|result| result.for_host(limit));
            answered(result.map_err(|mut error| {
                shorten_error(&mut error, limit);
                error
            }))
        };
        let consulting = on_own_thread(move || async move {
            let progress = |progress: &Progress| {
                let text = if has_clock { progress.without_time() } else { progress.to_string() };
                sender.send_replace(Some(text));
            };
            let watch = Watch { progress: &progress, ..server.watch(&cancel) };
            let consulting = consult::consult(Request(arguments), &server.config, None, watch);
            tokio::pin!(consulting);
            tokio::select! {
                result = &mut consulting => return answered(result),
                () = server.closing.cancelled() => cancel.cancel(),
            }
            answered(consulting.await)
        });
        let Some(token) = token else { return consulting.await };
        tokio::select! {
            result = consulting => result,
            never = report_progress(news, &token, &context.peer) => match never {},
        }
    }
}

/// Sends the latest progress until the future is dropped.
async fn report_progress(
    mut news: watch::Receiver<Option<String>>,
    token: &ProgressToken,
    peer: &Peer<RoleServer>,
) -> Infallible {
    let mut count = 0.0;
    while news.changed().await.is_ok() {
        let message = news.borrow_and_update().clone().unwrap_or_default();
        count += 1.0;
        let param = ProgressNotificationParam::new(token.clone(), count).with_message(message);
        // A host that does not listen only misses the progress.
        let _ = peer.notify_progress(param).await;
        tokio::time::sleep(PROGRESS_PAUSE).await;
    }
    std::future::pending().await
}

fn answered(result: Result<impl serde::Serialize, Error>) -> CallToolResult {
    match result.map(serde_json::to_value) {
        Ok(Ok(value)) => CallToolResult::structured(value),
        Ok(Err(error)) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
        Err(error) => refused(&error),
    }
}

/// The result for an error. Its text and its structure hold the same, since some hosts show a model only one of them.
fn refused(error: &Error) -> CallToolResult {
    let mut result = CallToolResult::structured_error(error.report());
    result.content = vec![ContentBlock::text(error.text())];
    result
}

fn object(schema: Value) -> JsonObject {
    serde_json::from_value(schema).unwrap_or_default()
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let file = include_str!("../../templates/mcp/tools.yaml");
    serde_yaml::from_str(file).expect("templates/mcp/tools.yaml is readable")
});

/// The tools that are offered in a mode.
pub(super) fn tools(mode: Mode) -> Vec<Tool> {
    let mut tools = TOOLS.clone();
    tools.retain(|tool| mode != Mode::Disabled || tool.name == "kimi_status");
    for tool in tools.iter_mut().filter(|tool| tool.name == "consult_kimi") {
        tool.description = Some(words::consult_kimi(mode).into());
        tool.input_schema = Arc::new(object(schema::tool_input()));
        tool.output_schema = Some(Arc::new(object(schemas::output())));
    }
    tools
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let identity =
            Implementation::new("kimi-bridge", env!("CARGO_PKG_VERSION")).with_title("kimi-bridge");
        let tools = ServerCapabilities::builder().enable_tools();
        let capabilities = match (self.is_on(), self.has_prompts()) {
            (true, true) => tools.enable_resources().enable_prompts().build(),
            (true, false) => tools.enable_resources().build(),
            (false, _) => tools.build(),
        };
        ServerConfig::new(capabilities)
            .with_server_info(identity)
            .with_instructions(words::instructions(&self.config))
    }

    async fn list_tools(&self, _: Page, _: HostRequest) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools(self.config.mode())))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: HostRequest,
    ) -> Result<CallToolResponse, ErrorData> {
        let mode = self.config.mode();
        let Ok(_under_way) = Arc::clone(&self.calls).try_acquire_owned() else {
            let message = format!("{MOST_CALLS} calls are under way in this server");
            let error = Error::new(Kind::Busy, message, "Call again when one of them has ended.");
            return Ok(answered(Err::<Value, _>(error)).into());
        };
        let result = match (request.name.as_ref(), mode) {
            ("kimi_status", _) => {
                let (server, cancel) = (self.clone(), context.ct.child_token());
                let looking = on_own_thread(move || async move {
                    answered(Ok(status::status(&server.config, server.watch(&cancel)).await))
                });
                looking.await
            }
            ("consult_kimi", Mode::Manual | Mode::Auto) => {
                self.consult(request.arguments.unwrap_or_default(), &context).await
            }
            ("record_decision", Mode::Manual | Mode::Auto) => {
                let request = Request(request.arguments.unwrap_or_default());
                let config = Arc::clone(&self.config);
                let deciding = on_own_thread(move || async move {
                    let standing = consult::record_decision(&request, &config);
                    answered(standing.map(|standing| json!({"thread": standing})))
                });
                deciding.await
            }
            ("consult_kimi" | "record_decision", Mode::Disabled) => Err(Error::new(
                Kind::Settings,
                "consult_kimi is switched off",
                self.config.mode_hint(),
            )),
            (other, _) => {
                let message = format!(
                    "there is no tool `{other}`; there are consult_kimi, record_decision and kimi_status"
                );
                return Err(ErrorData::invalid_params(message, None));
            }
        };
        Ok(result.unwrap_or_else(|error| refused(&error)).into())
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: HostRequest,
    ) -> Result<CustomResult, ErrorData> {
        let why = request.params.as_ref().and_then(|params| params.get("why")?.as_str());
        Err(match why {
            Some(why) if request.method == UNREADABLE => {
                ErrorData::parse_error(why.to_owned(), None)
            }
            _ => unknown_request(&request.method),
        })
    }

    async fn list_resources(
        &self,
        _: Page,
        _: HostRequest,
    ) -> Result<ListResourcesResult, ErrorData> {
        if !self.is_on() {
            return Ok(ListResourcesResult::default());
        }
        let config = Arc::clone(&self.config);
        let listing = on_own_thread(move || async move { resources::list(&config) });
        listing.await.map_err(|error| {
            ErrorData::internal_error(format!("the resources could not be listed: {error}"), None)
        })
    }

    async fn list_resource_templates(
        &self,
        _: Page,
        _: HostRequest,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(if self.is_on() {
            resources::templates()
        } else {
            ListResourceTemplatesResult::default()
        })
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: HostRequest,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if !self.is_on() {
            return Err(self.switched_off());
        }
        let config = Arc::clone(&self.config);
        let reading = on_own_thread(move || async move { resources::read(&request.uri, &config) });
        let read = reading.await.map_err(|error| {
            ErrorData::internal_error(format!("the resource could not be read: {error}"), None)
        })?;
        read.map(Into::into)
    }

    async fn list_prompts(&self, _: Page, _: HostRequest) -> Result<ListPromptsResult, ErrorData> {
        Ok(if self.has_prompts() { prompts::list() } else { ListPromptsResult::default() })
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: HostRequest,
    ) -> Result<GetPromptResponse, ErrorData> {
        if !self.is_on() {
            return Err(self.switched_off());
        }
        prompts::get(&request).map(Into::into)
    }
}

/// The refusal of an unknown request, or of one whose parameters do not fit its method.
fn unknown_request(method: &str) -> ErrorData {
    let message = format!("there is no method `{method}` with these parameters");
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_offers_its_tools() {
        let names = |mode| tools(mode).into_iter().map(|tool| tool.name).collect::<Vec<_>>();
        assert_eq!(names(Mode::Disabled), ["kimi_status"]);
        assert_eq!(names(Mode::Manual), ["consult_kimi", "record_decision", "kimi_status"]);
        assert_eq!(names(Mode::Auto), ["consult_kimi", "record_decision", "kimi_status"]);
    }

    #[test]
    fn the_tool_list_is_small() {
        let list = json!(tools(Mode::Auto));
        insta::assert_json_snapshot!(list);
        let bytes = list.to_string().len();
        // About 1,500 tokens.
        assert!(bytes <= 6_000, "{bytes} bytes");
    }
}
